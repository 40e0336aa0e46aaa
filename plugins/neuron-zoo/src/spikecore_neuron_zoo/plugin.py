"""The hooks of this plugin: none yet; the module gives the plugin its id."""
