#[test] fn it() {}
