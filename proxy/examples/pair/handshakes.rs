//! Full mutual TLS handshakes with an inbound proxy, one connection each and nothing else on it.

use std::io::Read as _;
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, Error, SignatureScheme};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

use crate::control;
use crate::mesh::Side;

/// Connections that are made at the same time.
const THREADS: usize = 8;
const TIMEOUT: Duration = Duration::from_secs(5);

/// `address seconds`, with the certificate of the client in `CERTS` (`pair`: of the small controller); prints JSON.
pub fn run(arguments: &[&str]) -> anyhow::Result<()> {
    let [address, seconds, whose] = arguments else {
        anyhow::bail!("usage: pair handshakes ADDRESS SECONDS pair|files");
    };
    let config = Arc::new(config(*whose == "pair")?);
    let (seconds, start) = (seconds.parse::<f64>()?, Instant::now());
    let end = start + Duration::from_secs_f64(seconds);
    let threads: Vec<_> = (0..THREADS)
        .map(|_| {
            let (address, config) = ((*address).to_owned(), Arc::clone(&config));
            std::thread::spawn(move || {
                let (mut done, mut errors) = (0_u64, 0_u64);
                while Instant::now() < end {
                    match one(&address, &config) {
                        Ok(()) => done += 1,
                        Err(_) => errors += 1,
                    }
                }
                (done, errors)
            })
        })
        .collect();
    let (mut done, mut errors) = (0, 0);
    for thread in threads {
        let (some, failed) = thread.join().map_err(|_| anyhow::anyhow!("a thread of clients panicked"))?;
        (done, errors) = (done + some, errors + failed);
    }
    let per_second = done as f64 / start.elapsed().as_secs_f64();
    println!("{{\"requests\":{done},\"per_s\":{per_second:.0},\"errors\":{errors}}}");
    Ok(())
}

/// Connects, and waits for the server to hang up: only then has it looked at the client's certificate.
fn one(address: &str, config: &Arc<ClientConfig>) -> anyhow::Result<()> {
    let mut tcp = TcpStream::connect(address)?;
    tcp.set_nodelay(true)?;
    tcp.set_read_timeout(Some(TIMEOUT))?;
    let mut tls = ClientConnection::new(Arc::clone(config), ServerName::try_from("server.test")?)?;
    while tls.is_handshaking() {
        tls.complete_io(&mut tcp)?;
    }
    tls.send_close_notify();
    while tls.wants_write() {
        tls.write_tls(&mut tcp)?;
    }
    tcp.shutdown(std::net::Shutdown::Write)?;
    while tls.read_tls(&mut tcp)? > 0 {
        // An alert means that the client was refused.
        let state = tls.process_new_packets()?;
        std::io::copy(&mut tls.reader().take(state.plaintext_bytes_to_read() as u64), &mut std::io::sink())?;
    }
    Ok(())
}

fn config(of_controller: bool) -> anyhow::Result<ClientConfig> {
    let directory = crate::variable::<String>("CERTS")?;
    let directory = Path::new(&directory);
    let (chain, key) = if of_controller {
        control::client_certificate(directory, Side::Outbound)?
    } else {
        let chain = CertificateDer::pem_file_iter(directory.join("client.pem"))?.collect::<Result<_, _>>()?;
        (chain, PrivateKeyDer::from_pem_file(directory.join("client.key")).context("client.key")?)
    };
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = Arc::new(AnyName(Arc::clone(&provider)));
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_auth_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// Who serves is not what is measured; that it holds the key of its certificate is checked.
#[derive(Debug)]
struct AnyName(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
