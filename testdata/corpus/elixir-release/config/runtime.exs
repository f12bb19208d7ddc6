import Config # runtime
