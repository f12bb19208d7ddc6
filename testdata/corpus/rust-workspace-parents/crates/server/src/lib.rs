pub fn server() {}
