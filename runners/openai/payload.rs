//! What a request carries: nothing, bytes, or a file that is too large to hold in memory.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};

use anyhow::Context;
use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

/// What is read of a file at once.
const PIECE: usize = 1 << 20;

/// A request without its address.
#[derive(Debug)]
pub enum Ask {
    /// Something to read.
    Get,
    /// Whether something is there.
    Head,
    /// A JSON body.
    Post(Bytes),
    /// A file.
    Upload(Payload),
}

/// The body of a request.
#[derive(Debug)]
pub enum Payload {
    /// All of it, once.
    Whole(Option<Bytes>),
    /// A file and the bytes of it that are left to send.
    File(File, u64),
}

impl Payload {
    /// The content of a file.
    pub fn file(path: &Path) -> anyhow::Result<Self> {
        let open = || {
            let file = File::open(path)?;
            let length = file.metadata()?.len();
            Ok::<_, std::io::Error>(Self::File(file, length))
        };
        open().with_context(|| format!("cannot read '{}'", path.display()))
    }

    fn left(&self) -> u64 {
        match self {
            Self::Whole(bytes) => bytes.as_ref().map_or(0, |bytes| bytes.len() as u64),
            Self::File(_, left) => *left,
        }
    }
}

impl From<Bytes> for Payload {
    fn from(bytes: Bytes) -> Self {
        Self::Whole(Some(bytes))
    }
}

impl Body for Payload {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut TaskContext<'_>,
    ) -> Poll<Option<std::io::Result<Frame<Bytes>>>> {
        if self.left() == 0 {
            return Poll::Ready(None);
        }
        let piece = match &mut *self {
            Self::Whole(bytes) => Ok(bytes.take().unwrap_or_default()),
            // Reading blocks the client's only thread, which has nothing else to do meanwhile.
            Self::File(file, left) => {
                let mut piece = vec![0; PIECE.min(usize::try_from(*left).unwrap_or(PIECE))];
                *left -= piece.len() as u64;
                file.read_exact(&mut piece).map(|()| Bytes::from(piece))
            }
        };
        Poll::Ready(Some(piece.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.left() == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left())
    }
}
