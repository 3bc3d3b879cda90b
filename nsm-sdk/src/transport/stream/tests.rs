use super::*;
use nsm_chain::FileId;
use std::io::{PipeReader, Read};
use std::os::fd::OwnedFd;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// The reading end of a pipe tells whether anybody still has the writing end.
fn pipe() -> (PipeReader, Arc<OwnedFd>, FileId) {
    let (reader, writer) = io::pipe().unwrap();
    let writer = OwnedFd::from(writer);
    let id = id(&writer);
    (reader, Arc::new(writer), id)
}

fn id(file: &OwnedFd) -> FileId {
    let stat = rustix::fs::fstat(file).unwrap();
    FileId { device: stat.st_dev, inode: stat.st_ino }
}

/// Waits until nobody has the writing end any more, which is at once or never.
fn is_closed(reader: &PipeReader) -> bool {
    rustix::io::ioctl_fionbio(reader, true).unwrap();
    matches!((&mut &*reader).read(&mut [0]), Ok(0))
}

fn pair() -> (RawStream, RawStream) {
    let (one, other) = UnixStream::pair().unwrap();
    (RawStream::unix(one), RawStream::unix(other))
}

fn port(stream: &RawStream) -> Arc<Port> {
    let RawStream::Unix(link) = stream else { panic!("no unix stream") };
    Arc::clone(&link.port)
}

/// What one read of a plain peer gives: bytes, and descriptors beside them.
fn read(from: &std::os::unix::net::UnixStream) -> (usize, usize) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(64))];
    let mut beside = RecvAncillaryBuffer::new(&mut space);
    let mut bytes = [0; 1000];
    let read = recvmsg(from, &mut [IoSliceMut::new(&mut bytes)], &mut beside, RecvFlags::empty()).unwrap().bytes;
    let files = beside.drain().map(|message| match message {
        RecvAncillaryMessage::ScmRights(files) => files.count(),
        _ => 0,
    });
    (read, files.sum())
}

async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(5), work).await.expect("in time")
}

#[tokio::test]
async fn each_descriptor_rides_on_one_byte_before_the_rest() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (mut ours, theirs) = (RawStream::unix(ours), theirs.into_std().unwrap());
    theirs.set_nonblocking(false).unwrap();
    let (_reader, file, _) = pipe();
    port(&ours).send(&[Arc::clone(&file), Arc::clone(&file), file]).unwrap();
    ours.write_all(b"0123456789").await.unwrap();
    let reads: Vec<_> = (0..4).map(|_| read(&theirs)).collect();
    assert_eq!(reads, [(1, 1), (1, 1), (1, 1), (7, 0)]);

    let (_reader, file, _) = pipe();
    port(&ours).send(&[file]).unwrap();
    let (empty, full) = (IoSlice::new(b""), IoSlice::new(b"abc"));
    let mut written = 0;
    while written < 3 {
        let rest = IoSlice::new(&b"abc"[written..]);
        let slices = if written == 0 { [empty, full] } else { [empty, rest] };
        written += std::future::poll_fn(|cx| Pin::new(&mut ours).poll_write_vectored(cx, &slices)).await.unwrap();
    }
    assert_eq!([read(&theirs), read(&theirs)], [(1, 1), (2, 0)]);
}

#[tokio::test]
async fn many_arrive_through_a_socket_that_is_full_in_between() {
    let (mut ours, mut theirs) = pair();
    let files: Vec<_> = (0..150).map(|_| pipe()).collect();
    let to_send: Vec<_> = files.iter().map(|(_, file, _)| Arc::clone(file)).collect();
    port(&ours).send(&to_send).unwrap();
    drop(to_send);
    let bytes: Vec<u8> = (0..2_000_000_u32).map(|number| number as u8).collect();
    let sent = bytes.clone();
    let writing = tokio::spawn(async move {
        ours.write_all(&sent).await.unwrap();
        ours
    });
    // Later than the writer can write: so it meets a full socket.
    tokio::task::yield_now().await;
    let mut got = vec![0; bytes.len()];
    within(theirs.read_exact(&mut got)).await.unwrap();
    assert!(got == bytes);
    let (_ours, port) = (writing.await.unwrap(), port(&theirs));
    for (reader, file, id) in files {
        let taken = within(port.receive(id)).await.unwrap();
        drop(file);
        assert!(!is_closed(&reader));
        drop(taken);
        assert!(is_closed(&reader), "sent once, taken once, held by nobody");
    }
}

#[tokio::test]
async fn more_than_there_is_room_for_do_not_leak_and_do_not_end_the_stream() {
    let (mut ours, theirs) = UnixStream::pair().map(|(a, b)| (RawStream::unix(a), b.into_std().unwrap())).unwrap();
    let (reader, file, id) = pipe();
    let files = vec![file.as_fd(); MOST_AT_ONCE + 1];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_AT_ONCE + 1))];
    let mut beside = SendAncillaryBuffer::new(&mut space);
    assert!(beside.push(SendAncillaryMessage::ScmRights(&files)));
    sendmsg(&theirs, &[IoSlice::new(b"a")], &mut beside, SendFlags::empty()).unwrap();
    rustix::io::write(&theirs, b"bc").unwrap();
    let mut read = [0; 3];
    within(ours.read_exact(&mut read)).await.unwrap();
    assert_eq!(&read, b"abc");
    drop(file);
    assert!(port(&ours).take(id).is_some());
    assert!(!is_closed(&reader));
    drop(ours);
    assert!(is_closed(&reader));
}

#[tokio::test(start_paused = true)]
async fn soon_after_the_connection_goes_what_nobody_took_and_at_once_what_was_not_sent() {
    let (mut ours, mut theirs) = pair();
    let (arrived, file, id) = pipe();
    port(&ours).send(&[file]).unwrap();
    ours.write_all(b"x").await.unwrap();
    within(theirs.read_u8()).await.unwrap();
    let (unsent, file, _) = pipe();
    port(&ours).send(&[file]).unwrap();
    assert!(!is_closed(&arrived) && !is_closed(&unsent));

    let (waits, other) = (port(&theirs), FileId { device: 0, inode: 0 });
    let waiting = tokio::spawn(async move { waits.receive(other).await });
    let kept = port(&theirs);
    drop(theirs);
    drop(ours);
    assert!(!is_closed(&arrived) && is_closed(&unsent), "{kept:?}");
    assert!(within(waiting).await.unwrap().is_none());
    // The last answer on a connection is read, the connection ends, and only then the answer is looked at.
    assert!(within(kept.receive(id)).await.is_some());
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(is_closed(&arrived), "{kept:?}");
    assert!(within(kept.receive(id)).await.is_none());
    assert_eq!(kept.send(&[pipe().1]), Ok(()));
}

#[tokio::test]
async fn who_waits_is_woken_by_the_arrival() {
    let (mut ours, mut theirs) = pair();
    let (_reader, file, id) = pipe();
    let waits = port(&theirs);
    let waiting = tokio::spawn(async move { waits.receive(id).await });
    tokio::task::yield_now().await;
    port(&ours).send(&[file]).unwrap();
    ours.write_all(b"x").await.unwrap();
    within(theirs.read_u8()).await.unwrap();
    assert_eq!(within(waiting).await.unwrap().map(|file| self::id(&file)), Some(id));
}

#[tokio::test]
async fn a_stream_that_is_broken_tells_so_with_descriptors_waiting() {
    let (mut ours, theirs) = pair();
    drop(theirs);
    let (reader, file, _) = pipe();
    port(&ours).send(&[file]).unwrap();
    assert_eq!(ours.write_all(b"x").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    assert!(is_closed(&reader));
}

#[tokio::test]
async fn what_comes_behind_a_descriptor_is_read_too() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (mut ours, theirs) = (RawStream::unix(ours), theirs.into_std().unwrap());
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let fds = [theirs.as_fd()];
    for byte in [b"a", b"b"] {
        let mut beside = SendAncillaryBuffer::new(&mut space);
        assert!(beside.push(SendAncillaryMessage::ScmRights(&fds)));
        sendmsg(&theirs, &[IoSlice::new(byte)], &mut beside, SendFlags::empty()).unwrap();
    }
    rustix::io::write(&theirs, b"cd").unwrap();

    let mut read = [0; 4];
    let all = tokio::time::timeout(Duration::from_secs(5), ours.read_exact(&mut read));
    all.await.expect("everything that was sent").unwrap();
    assert_eq!(&read, b"abcd");
}
