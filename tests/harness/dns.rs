//! A server of the DNS that says what it is told to (RFC 1035), over UDP and TCP.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, UdpSocket},
    task::JoinHandle,
};

/// What a name server has on a free port. Stops when dropped.
pub struct NameServer {
    pub address: SocketAddr,
    shared: Arc<Mutex<Zone>>,
    serving: Vec<JoinHandle<()>>,
}

/// A record, without its name.
#[derive(Debug, Clone)]
pub enum Resource {
    Address(IpAddr),
    /// Priority, weight, port and target.
    Service(u16, u16, u16, &'static str),
}

#[derive(Debug, Default)]
struct Zone {
    /// By name in lower case, without the last point; with the seconds that they hold.
    records: HashMap<String, (u32, Vec<Resource>)>,
    /// Answers with this code to everything, such as 2 (SERVFAIL).
    failure: Option<u8>,
    /// Answers over UDP that they do not fit.
    is_short: bool,
    questions: usize,
    over_tcp: usize,
}

impl NameServer {
    pub async fn start() -> Self {
        let (udp, tcp) = loop {
            let udp = UdpSocket::bind("127.0.0.1:0").await.expect("a port is free");
            let address = udp.local_addr().expect("a bound socket has an address");
            // The same port may be taken for TCP.
            if let Ok(tcp) = TcpListener::bind(address).await {
                break (udp, tcp);
            }
        };
        let address = udp.local_addr().expect("a bound socket has an address");
        let shared = Arc::<Mutex<Zone>>::default();
        let over_udp = {
            let shared = shared.clone();
            async move {
                let mut buffer = [0; 4096];
                while let Ok((length, from)) = udp.recv_from(&mut buffer).await {
                    let answer = lock(&shared).answer(&buffer[..length], true);
                    if let Some(answer) = answer {
                        let _ = udp.send_to(&answer, from).await;
                    }
                }
            }
        };
        let over_tcp = {
            let shared = shared.clone();
            async move {
                while let Ok((mut stream, _)) = tcp.accept().await {
                    while let Ok(length) = stream.read_u16().await {
                        let mut question = vec![0; length.into()];
                        if stream.read_exact(&mut question).await.is_err() {
                            break;
                        }
                        let answer = lock(&shared).answer(&question, false);
                        let Some(answer) = answer else { break };
                        let length = u16::try_from(answer.len()).expect("an answer is short");
                        let framed = [&length.to_be_bytes()[..], &answer].concat();
                        if stream.write_all(&framed).await.is_err() {
                            break;
                        }
                    }
                }
            }
        };
        let serving = vec![tokio::spawn(over_udp), tokio::spawn(over_tcp)];
        Self { address, shared, serving }
    }

    /// These are the records of a name from now on, for so many seconds.
    pub fn set(&self, name: &str, seconds: u32, records: &[Resource]) {
        lock(&self.shared).records.insert(name.to_owned(), (seconds, records.to_vec()));
    }

    /// There is no such name.
    pub fn remove(&self, name: &str) {
        lock(&self.shared).records.remove(name);
    }

    /// Fails with this code, or works again.
    pub fn fail(&self, code: Option<u8>) {
        lock(&self.shared).failure = code;
    }

    /// Whether answers over UDP are cut.
    pub fn be_short(&self, is_short: bool) {
        lock(&self.shared).is_short = is_short;
    }

    /// Questions so far.
    pub fn questions(&self) -> usize {
        lock(&self.shared).questions
    }

    /// Those over TCP.
    pub fn over_tcp(&self) -> usize {
        lock(&self.shared).over_tcp
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.serving.iter().for_each(JoinHandle::abort);
    }
}

fn lock(shared: &Mutex<Zone>) -> std::sync::MutexGuard<'_, Zone> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Zone {
    fn answer(&mut self, question: &[u8], is_udp: bool) -> Option<Vec<u8>> {
        /// A response, recursion desired and available.
        const FLAGS: [u8; 2] = [0x81, 0x80];
        const CUT: u8 = 0x02;
        const NO_SUCH_NAME: u8 = 3;
        self.questions += 1;
        self.over_tcp += usize::from(!is_udp);
        let id = question.get(..2)?;
        let mut name = Vec::new();
        let mut place = 12;
        while let Some(length) = question.get(place).copied().filter(|length| *length > 0) {
            let label = question.get(place + 1..place + 1 + usize::from(length))?;
            name.push(String::from_utf8_lossy(label).to_ascii_lowercase());
            place += 1 + usize::from(length);
        }
        let kind = u16::from_be_bytes(question.get(place + 1..place + 3)?.try_into().ok()?);
        let asked = question.get(12..place + 5)?;
        let mut flags = FLAGS;
        let mut records = Vec::new();
        match (self.failure, self.records.get(&name.join("."))) {
            (Some(code), _) => flags[1] |= code,
            (None, None) => flags[1] |= NO_SUCH_NAME,
            (None, Some(_)) if is_udp && self.is_short => flags[0] |= CUT,
            (None, Some((seconds, list))) => {
                let of_kind = list.iter().map(written).filter(|(its, _)| *its == kind);
                records.extend(of_kind.map(|(kind, data)| {
                    let length = u16::try_from(data.len()).expect("a record is short");
                    // The name is that of the question, which stands at byte 12.
                    let head = [&[0xc0, 12][..], &kind.to_be_bytes(), &[0, 1], &seconds.to_be_bytes()];
                    [&head.concat()[..], &length.to_be_bytes(), &data].concat()
                }));
            }
        }
        let count = u16::try_from(records.len()).expect("there are few records").to_be_bytes();
        let counts = [&[0, 1][..], &count, &[0, 0, 0, 0]].concat();
        Some([id, &flags, &counts, asked, &records.concat()].concat())
    }
}

/// The type of a record and its data.
fn written(record: &Resource) -> (u16, Vec<u8>) {
    match record {
        Resource::Address(IpAddr::V4(address)) => (1, address.octets().to_vec()),
        Resource::Address(IpAddr::V6(address)) => (28, address.octets().to_vec()),
        Resource::Service(priority, weight, port, target) => {
            let mut data = [*priority, *weight, *port].map(u16::to_be_bytes).concat();
            for label in target.split('.').filter(|label| !label.is_empty()) {
                data.push(u8::try_from(label.len()).expect("a label is short"));
                data.extend(label.as_bytes());
            }
            data.push(0);
            (33, data)
        }
    }
}
