module example.org/mono
