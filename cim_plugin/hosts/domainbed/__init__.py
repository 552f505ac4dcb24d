"""DomainBed as host: its tables, its images, its faults in one line, its sweeps."""
