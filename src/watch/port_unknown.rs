//! Who listens on a TCP port, where the operating system does not tell other programs.

/// Always the reason.
pub fn listener(port: u16, _: &[String]) -> Result<u32, String> {
    Err(format!("only Linux tells which process listens on port {port}"))
}
