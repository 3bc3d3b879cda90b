//! MEMIF: a shared memory packet interface.

use super::kernel::file_url;
use super::parameter::{ParameterError, keys};
use super::view::view;
use super::{FileUrl, MEMIF};

view!(Memif, MemifMut, MEMIF, as_memif, as_memif_mut);

impl<'a> Memif<'a> {
    /// The file of the socket; with a [`socket_file`](Self::socket_file), the network namespace that holds it.
    ///
    /// # Errors
    /// [`ParameterError`] when the URL names no file.
    pub fn file(&self) -> Result<Option<FileUrl>, ParameterError> {
        file_url(self.0)
    }

    /// Name of the socket in the abstract name space, `None` for a socket in the file system.
    pub fn socket_file(&self) -> Option<&'a str> {
        self.0.parameter(keys::SOCKET_FILE)
    }
}

impl MemifMut<'_> {
    /// Sets a socket in the file system.
    pub fn set_socket(&mut self, socket: &FileUrl) -> &mut Self {
        self.0.set_parameter(keys::INODE_URL, socket.to_string());
        self.0.set_parameter(keys::SOCKET_FILE, "");
        self
    }

    /// Sets an abstract socket: the network namespace that holds it, and its name.
    pub fn set_abstract_socket(&mut self, netns: &FileUrl, name: &str) -> &mut Self {
        self.0.set_parameter(keys::INODE_URL, netns.to_string());
        self.0.set_parameter(keys::SOCKET_FILE, name);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Mechanism;

    #[test]
    fn both_kinds_of_socket_are_told_apart() {
        let mut mechanism = Mechanism::memif();
        let netns = FileUrl::Inode { device: 4, inode: 7 };
        mechanism.as_memif_mut().unwrap().set_abstract_socket(&netns, "memif-1");
        let view = mechanism.as_memif().unwrap();
        assert_eq!((view.file(), view.socket_file()), (Ok(Some(netns)), Some("memif-1")));

        let socket = FileUrl::from_path("/run/memif.sock").unwrap();
        mechanism.as_memif_mut().unwrap().set_socket(&socket);
        let view = mechanism.as_memif().unwrap();
        assert_eq!((view.file(), view.socket_file()), (Ok(Some(socket)), None));
    }
}
