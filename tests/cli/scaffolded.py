"""What `spike new-plugin` writes, with variants of it, as one file for `--load`; and a run that is made once."""

import spikecore
from spikecore.registry import Blocking, Registry, use
from spikecore.scaffold.names import names_for
from spikecore.scaffold.render import render


def component_file(folder, kind, variants):
    """The component of a fresh plugin and, after it, `variants`, in which `FreshToy` stands for its class."""
    (component,) = render("fresh-toy", kind, folder).rglob("component.py")
    file = folder / "toys.py"
    file.write_text(component.read_text() + variants.replace("FreshToy", names_for("fresh-toy", kind).class_name))
    return file


def trained(config, directory):
    """The directory of a run with nothing but what is installed."""
    with use(Registry(blocking=Blocking())):
        spikecore.run(config, out=directory)
    return directory
