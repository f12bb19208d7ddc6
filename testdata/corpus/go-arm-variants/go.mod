module example.org/exporter
