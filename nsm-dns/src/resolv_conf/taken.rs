//! A file that is ours for a while.

use std::fs::{self, File, TryLockError};
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::{FileError, failed, read, text};

/// Where `ip netns exec` looks for files of a namespace, in a directory of its name.
const NAMESPACES: &str = "/etc/netns";

/// A file that names our proxy. Dropped, it becomes what it was.
#[derive(Debug)]
pub(crate) struct TakenOver {
    path: PathBuf,
    /// What we wrote last; none: an earlier life did.
    written: Option<Vec<u8>>,
    /// Locked: that ends with this process at the latest.
    _lock: File,
    restored: bool,
}

impl TakenOver {
    /// Takes a file over: one that is there, or a new one in which for the rest this text holds.
    pub(super) fn begin(path: &Path, inherited: &[u8], nameserver: IpAddr) -> Result<Self, FileError> {
        let (file, is_new) = opened_or_made(path)?;
        lock(path, &file)?.ok_or_else(|| FileError::InUse { path: path.to_owned() })?;
        let present = read(path, &file)?;
        let left = text::read(&present);
        // Of an earlier life that was killed, unless somebody has edited what it left.
        let is_new = is_new || left.as_ref().is_some_and(|left| left.becomes.is_none());
        let former = match left {
            Some(left) => left.becomes.unwrap_or(left.former),
            None if is_new => inherited.to_owned(),
            None => present.clone(),
        };
        let written = text::ours(&former, is_new, nameserver);
        write(path, &file, &present, &written)?;
        Ok(Self { path: path.to_owned(), written: Some(written), _lock: file, restored: false })
    }

    /// One that was taken over by a process that is no more; none if that lives.
    pub(super) fn of_the_dead(path: &Path) -> Result<Option<Self>, FileError> {
        let file = File::options().read(true).write(true).open(path).map_err(|error| failed(path, "opened", error))?;
        let locked = lock(path, &file)?.is_some();
        Ok(locked.then(|| Self { path: path.to_owned(), written: None, _lock: file, restored: false }))
    }

    /// Whether it is still as we wrote it.
    pub(crate) fn is_untouched(&self) -> bool {
        fs::read(&self.path).is_ok_and(|text| Some(text) == self.written)
    }

    /// Makes it what it was. What others wrote meanwhile stays.
    pub(crate) fn restore(mut self) -> Result<(), FileError> {
        self.put_back()
    }

    fn put_back(&mut self) -> Result<(), FileError> {
        self.restored = true;
        // By its name: somebody may have put another file in its place.
        let file = match File::options().read(true).write(true).open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(failed(&self.path, "opened", error)),
        };
        let present = read(&self.path, &file)?;
        let Some(ours) = text::read(&present) else {
            tracing::info!(path = %self.path.display(), "somebody else has written it: it stays as it is");
            return Ok(());
        };
        match ours.becomes {
            Some(text) => write(&self.path, &file, &present, &text),
            None => {
                let removed = fs::remove_file(&self.path).map_err(|error| failed(&self.path, "removed", error));
                // So is the directory of a namespace, if nobody else has anything in it.
                let directory = self.path.parent().filter(|it| it.parent() == Some(Path::new(NAMESPACES)));
                let _in_use = directory.map(fs::remove_dir);
                removed
            }
        }
    }
}

impl Drop for TakenOver {
    fn drop(&mut self) {
        if !self.restored
            && let Err(error) = self.put_back()
        {
            tracing::error!(%error, "programs go on asking a DNS proxy that is no more");
        }
    }
}

fn opened_or_made(path: &Path) -> Result<(File, bool), FileError> {
    let opened = File::options().read(true).write(true).open(path);
    match opened {
        Ok(file) => Ok((file, false)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if let Some(directory) = path.parent() {
                fs::create_dir_all(directory).map_err(|error| failed(directory, "made", error))?;
            }
            let made = File::options().read(true).write(true).create_new(true).open(path);
            Ok((made.map_err(|error| failed(path, "made", error))?, true))
        }
        Err(error) => Err(failed(path, "opened for writing", error)),
    }
}

/// None: another one has it.
fn lock(path: &Path, file: &File) -> Result<Option<()>, FileError> {
    match file.try_lock() {
        Ok(()) => Ok(Some(())),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(failed(path, "locked", error)),
    }
}

/// Writes it in one piece, as long as it was at least: whoever reads it, or finds it after we are killed right here, sees either
/// text, perhaps with empty lines at its end.
fn write(path: &Path, file: &File, present: &[u8], text: &[u8]) -> Result<(), FileError> {
    let mut piece = text.to_owned();
    piece.resize(text.len().max(present.len()), b'\n');
    let written = file.write_all_at(&piece, 0).and_then(|()| file.set_len(text.len() as u64));
    written.map_err(|error| {
        // A disk that is full, say. What is there takes no room.
        let _as_good_as_it_gets = file.write_all_at(present, 0).and_then(|()| file.set_len(present.len() as u64));
        failed(path, "written", error)
    })
}

#[cfg(test)]
mod tests {
    use super::super::ResolvConf;
    use super::*;

    const BEFORE: &str = "nameserver 10.96.0.10\nsearch cluster.local\n";
    const US: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    /// A directory with a file in it, removed at the end.
    struct Room(PathBuf);

    impl Room {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("nsm-dns-{}-{name}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            fs::write(path.join("resolv.conf"), BEFORE).unwrap();
            Self(path)
        }

        fn path(&self) -> PathBuf {
            self.0.join("resolv.conf")
        }

        fn text(&self) -> String {
            fs::read_to_string(self.path()).unwrap()
        }
    }

    impl Drop for Room {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    /// What a process that is killed leaves: the file as it is, and no lock.
    fn killed(mut taken: TakenOver) {
        taken.restored = true;
    }

    #[test]
    fn it_is_the_same_file_all_the_time_and_becomes_what_it_was() {
        use std::os::unix::fs::MetadataExt;
        let room = Room::new("same");
        let inode = || fs::metadata(room.path()).unwrap().ino();
        let (before, file) = (inode(), ResolvConf::at(room.path()));
        let taken = file.take_over(US).unwrap();
        assert!(taken.is_untouched() && room.text().contains("\nnameserver 127.0.0.1\n"));
        assert_eq!(file.settings().unwrap().servers, ["10.96.0.10:53".parse().unwrap()], "what it was still counts");
        assert!(matches!(file.take_over(US), Err(FileError::InUse { .. })));
        assert!(!file.recover().unwrap(), "its owner lives");
        taken.restore().unwrap();
        assert_eq!((room.text().as_str(), inode()), (BEFORE, before));
        drop(file.take_over(US).unwrap());
        assert_eq!((room.text().as_str(), inode()), (BEFORE, before));
    }

    #[test]
    fn what_the_killed_left_is_found_and_put_back_once() {
        let room = Room::new("killed");
        let file = ResolvConf::at(room.path());
        killed(file.take_over(US).unwrap());
        assert!(file.recover().unwrap());
        assert_eq!(room.text(), BEFORE);
        assert!(!file.recover().unwrap());
        for _ in 0..3 {
            killed(file.take_over(US).unwrap());
        }
        // Another life takes it over at once: it knows what there was in the beginning.
        file.take_over(US).unwrap().restore().unwrap();
        assert_eq!(room.text(), BEFORE);
        // Killed between writing and cutting it to its length.
        fs::write(room.path(), format!("{BEFORE}\n\n\n\n")).unwrap();
        assert!(!file.recover().unwrap());
        assert_eq!(file.settings().unwrap().servers.len(), 1);
    }

    #[test]
    fn what_others_wrote_stays() {
        let room = Room::new("others");
        let file = ResolvConf::at(room.path());
        for replaces in [true, false] {
            let taken = file.take_over(US).unwrap();
            let theirs = "nameserver 9.9.9.9\n";
            if replaces {
                fs::write(room.0.join("new"), theirs).unwrap();
                fs::rename(room.0.join("new"), room.path()).unwrap();
            } else {
                fs::write(room.path(), room.text() + "options rotate\n").unwrap();
            }
            assert!(!taken.is_untouched());
            taken.restore().unwrap();
            let expected = if replaces { theirs } else { "nameserver 9.9.9.9\noptions rotate\n" };
            assert_eq!(room.text(), expected);
        }
        let taken = file.take_over(US).unwrap();
        fs::remove_file(room.path()).unwrap();
        taken.restore().unwrap();
        assert!(!room.path().exists());
    }

    #[test]
    fn one_that_was_not_there_is_made_and_removed() {
        let room = Room::new("new");
        let own = ResolvConf::at(room.0.join("netns/web/resolv.conf")).inheriting(room.path());
        assert!(!own.recover().unwrap());
        let taken = own.take_over(US).unwrap();
        let text = fs::read_to_string(own.path()).unwrap();
        assert!(text.ends_with("nameserver 127.0.0.1\nsearch cluster.local\n"), "{text}");
        assert_eq!(own.settings().unwrap().servers.len(), 1);
        killed(taken);
        assert!(own.recover().unwrap());
        assert!(!own.path().exists());
        assert_eq!(room.text(), BEFORE);
        killed(own.take_over(US).unwrap());
        own.take_over(US).unwrap().restore().unwrap();
        assert!(!own.path().exists());
    }

    #[test]
    fn what_cannot_be_such_a_file_is_said_to_be_none() {
        let room = Room::new("none");
        fs::write(room.path(), vec![b'x'; 70_000]).unwrap();
        let file = ResolvConf::at(room.path());
        let error = file.take_over(US).unwrap_err();
        assert!(matches!(error, FileError::TooLarge { .. }), "{error}");
        let error = ResolvConf::at(&room.0).take_over(US).unwrap_err().to_string();
        assert!(error.contains("cannot be opened for writing"), "{error}");
        assert_eq!(fs::metadata(room.path()).unwrap().len(), 70_000);
    }
}
