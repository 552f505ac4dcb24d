"""A small host with the interface of DomainBed that the plugin uses, written for the tests."""
