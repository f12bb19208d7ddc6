import Config # prod
