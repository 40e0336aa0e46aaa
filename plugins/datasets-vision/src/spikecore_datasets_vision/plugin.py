"""The hooks of this plugin: none; the module gives the plugin its id."""
