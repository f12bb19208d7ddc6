import Config # config
