"""``cim-plugin retrain``: the last layer of a finished run fitted again on its frozen features."""
