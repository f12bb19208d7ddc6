module example.org/agent
