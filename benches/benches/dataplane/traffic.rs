//! What a wire carries, by the tools that everybody has: `iperf3` and `ping`.

use std::error::Error;
use std::io::{self, BufRead, BufReader};
use std::net::Ipv4Addr;
use std::process::{Child, Command, Stdio};

use nsm_kernel::Netns;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// What was measured in one turn.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Traffic {
    /// One TCP stream, Gbit/s at the receiver.
    pub(crate) one: f64,
    /// Four TCP streams.
    pub(crate) four: f64,
    /// From one request to its answer, µs: the mean of a flood in which each request waits for the answer before it.
    pub(crate) round_trip: f64,
}

/// How long a turn takes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Length {
    pub(crate) seconds: u32,
    pub(crate) pings: u32,
}

/// Sends from one namespace to an address in the other.
pub(crate) async fn measure(from: &Netns, to: &Netns, address: Ipv4Addr, length: Length) -> Outcome<Traffic> {
    // Whatever must first be learned or agreed upon.
    ping(from, address, 20).await?;
    let round_trip = ping(from, address, length.pings).await?;
    let one = iperf3(from, to, address, 1, length.seconds).await?;
    let four = iperf3(from, to, address, 4, length.seconds).await?;
    Ok(Traffic { one, four, round_trip })
}

async fn ping(from: &Netns, address: Ipv4Addr, count: u32) -> Outcome<f64> {
    let (count_text, address) = (count.to_string(), address.to_string());
    let child = spawn(from, "ping", &["-q", "-f", "-w", "30", "-c", &count_text, &address]).await?;
    let output = tokio::task::spawn_blocking(move || child.wait_with_output()).await??;
    let text = String::from_utf8_lossy(&output.stdout);
    if !text.contains(&format!(" {count} received")) {
        return Err(format!("not every ping was answered: {text}").into());
    }
    // "20000 packets transmitted, 20000 received, 0% packet loss, time 245ms"
    let time = text.split("time ").nth(1).and_then(|rest| rest.split("ms").next()?.trim().parse::<f64>().ok());
    Ok(time.ok_or_else(|| format!("ping says no time: {text}"))? * 1e3 / f64::from(count))
}

async fn iperf3(from: &Netns, to: &Netns, address: Ipv4Addr, streams: u8, seconds: u32) -> Outcome<f64> {
    let mut server = Running(spawn(to, "iperf3", &["-s", "-1", "-A", "1", "--forceflush"]).await?);
    let output = server.0.stdout.take().ok_or("no output of iperf3")?;
    let listening = tokio::task::spawn_blocking(move || -> io::Result<_> {
        let mut output = BufReader::new(output);
        let mut line = String::new();
        while !line.contains("listening") {
            line.clear();
            if output.read_line(&mut line)? == 0 {
                return Err(io::Error::other("iperf3 ended before it listened"));
            }
        }
        // Kept: it goes on writing there.
        Ok(output)
    });
    let mut rest = listening.await??;
    let (streams, seconds, address) = (streams.to_string(), seconds.to_string(), address.to_string());
    let arguments = ["-c", &address, "-P", &streams, "-t", &seconds, "-O", "1", "-A", "0", "-J"];
    let client = spawn(from, "iperf3", &arguments).await?;
    let output = tokio::task::spawn_blocking(move || {
        let output = client.wait_with_output();
        let _said = io::copy(&mut rest, &mut io::sink());
        output
    });
    let report: serde_json::Value = serde_json::from_slice(&output.await??.stdout)?;
    let rate = report["end"]["sum_received"]["bits_per_second"].as_f64();
    rate.map(|bits| bits / 1e9).ok_or_else(|| format!("iperf3: {}", report["error"]).into())
}

/// A program in a namespace. `ping`, `iperf3` and others that may be missing.
pub(crate) async fn spawn(netns: &Netns, program: &str, arguments: &[&str]) -> Outcome<Child> {
    let program = program.to_owned();
    let missing =
        format!("{program} could not be run; install iperf3 iputils-ping wireguard-go wireguard-tools iproute2");
    let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
    let spawned = netns.run(move || -> io::Result<Child> {
        Command::new(program).args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()
    });
    Ok(spawned.await.map_err(|error| format!("{missing}: {error}"))?)
}

/// A child that ends with this.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ended = self.0.kill().and_then(|()| self.0.wait());
    }
}
