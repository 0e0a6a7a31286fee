//! Who listens on a TCP port of this machine, from Linux's `/proc`.

use std::fs;

/// `TCP_LISTEN` of the kernel, as `/proc/net/tcp` writes it.
const LISTEN: &str = "0A";

/// The process that listens on `port`, where its command line has one of `programs` in it.
pub fn listener(port: u16, programs: &[String]) -> Result<u32, String> {
    let sockets: Vec<u64> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|path| fs::read_to_string(path).ok())
        .flat_map(|table| listening(&table, port))
        .collect();
    if sockets.is_empty() {
        return Err(format!("nothing on this machine listens on port {port}"));
    }
    let Some(pid) = owner(&sockets) else {
        return Err(format!("the process on port {port} is another user's, and cannot be seen"));
    };
    if programs.is_empty() {
        return Err("the server's descriptor names no 'programs'".to_owned());
    }
    let words = command_line(pid);
    let known = |program: &String| words.to_lowercase().contains(&program.to_lowercase());
    if programs.iter().any(known) {
        return Ok(pid);
    }
    // Only the program's own name: arguments may hold paths and keys.
    let name = words.split('\0').next().and_then(|word| word.rsplit('/').next()).unwrap_or("");
    Err(format!("port {port} belongs to '{name}', which is no {}", programs.join(" or ")))
}

/// The inodes of the sockets that listen on `port`.
fn listening(table: &str, port: u16) -> Vec<u64> {
    let ending = format!(":{port:04X}");
    let socket = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let listens = fields.get(1)?.ends_with(&ending) && *fields.get(3)? == LISTEN;
        fields.get(9).filter(|_| listens)?.parse().ok()
    };
    table.lines().skip(1).filter_map(socket).collect()
}

/// The oldest process that holds one of these sockets: its children may have inherited it.
fn owner(sockets: &[u64]) -> Option<u32> {
    let links: Vec<String> = sockets.iter().map(|inode| format!("socket:[{inode}]")).collect();
    let holds = |pid: &u32| {
        let Ok(files) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
        files
            .flatten()
            .filter_map(|file| fs::read_link(file.path()).ok())
            .any(|target| links.iter().any(|link| target.as_os_str() == link.as_str()))
    };
    let processes = fs::read_dir("/proc").ok()?.flatten();
    processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(holds).min()
}

fn command_line(pid: u32) -> String {
    let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&words).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_listening_sockets_of_the_port_count() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   \
                     uid  timeout inode\n\
                     0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  \
                     1000 0 4711 1 0 100 0 0 10 0\n\
                     1: 0100007F:1F90 0100007F:C350 01 00000000:00000000 00:00000000 00000000  \
                     1000 0 4712 1 0 100 0 0 10 0\n\
                     2: 0100007F:1F91 00000000:0000 0A 00000000:00000000 00:00000000 00000000  \
                     1000 0 4713 1 0 100 0 0 10 0\n";
        assert_eq!(listening(table, 8080), [4711]);
        assert!(listening(table, 80).is_empty());
    }

    #[test]
    fn the_listener_is_found_and_another_program_is_named() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        let own = std::env::current_exe().unwrap();
        let own = own.file_name().unwrap().to_string_lossy().into_owned();
        assert_eq!(listener(port, &[own.to_uppercase()]), Ok(std::process::id()));
        let error = listener(port, &["vllm".to_owned()]).unwrap_err();
        assert!(error.contains(&own) && error.contains("no vllm"), "{error}");
        drop(socket);
        assert!(listener(port, &[own]).unwrap_err().contains("nothing"));
    }
}
