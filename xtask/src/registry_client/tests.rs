//! A registry in miniature, which wants a token from a token server, which wants the login.

use std::convert::Infallible;

use hyper::body::Incoming;
use hyper::service::service_fn;

use super::*;

const INDEX: &str = r#"{"manifests":[{"platform":{"os":"linux","architecture":"arm64"}},{"platform":{"os":"unknown","architecture":"unknown"}}]}"#;
const MANIFEST: &str = r#"{"config":{"digest":"sha256:config"}}"#;

fn login(password: &str) -> Option<Login> {
    Some(Login { username: "user".into(), password: Secret::new(password) })
}

fn answer(request: &Request<Incoming>, host: &str) -> Response<Full<Bytes>> {
    let authorization = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let respond = |status: u16, body: &str| {
        Response::builder().status(status).body(Full::new(Bytes::from(body.to_owned()))).unwrap()
    };
    let path = request.uri().path();
    if path == "/token" {
        let query = request.uri().query().unwrap_or_default();
        let is_right = authorization == Some("Basic dXNlcjpwYXNz")
            && query == "service=reg&scope=repository%3Aa%2Fb%3Apull";
        return if is_right { respond(200, r#"{"access_token":"T"}"#) } else { respond(401, "{}") };
    }
    if authorization != Some("Bearer T") {
        let mut refused = respond(401, "{}");
        let challenge =
            format!(r#"Bearer realm="http://{host}/token",service="reg",scope="repository:a/b:pull""#);
        refused.headers_mut().insert(WWW_AUTHENTICATE, challenge.parse().unwrap());
        return refused;
    }
    match path {
        "/v2/a/b/manifests/many" => respond(200, INDEX),
        "/v2/a/b/manifests/one" => {
            let mut found = respond(200, MANIFEST);
            found.headers_mut().insert("docker-content-digest", "sha256:header".parse().unwrap());
            found
        }
        "/v2/a/b/blobs/sha256:config" => respond(200, r#"{"os":"linux","architecture":"amd64"}"#),
        "/v2/a/b/manifests/sha256:00" => respond(200, MANIFEST),
        _ => respond(404, "{}"),
    }
}

async fn registry() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = format!("localhost:{}", listener.local_addr().unwrap().port());
    let own = host.clone();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let host = own.clone();
            let service = service_fn(move |request| {
                let answer = answer(&request, &host);
                async move { Ok::<_, Infallible>(answer) }
            });
            tokio::spawn(
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
            );
        }
    });
    host
}

#[tokio::test]
async fn an_image_is_found_through_the_token_server() {
    let client = RegistryClient::new(registry().await, login("pass"));
    let many = client.find("a/b", "many").await.unwrap();
    assert_eq!(many.platforms, ["linux/arm64"]);
    assert_eq!(many.digest, format!("sha256:{}", hex::encode(Sha256::digest(INDEX))));
    let one = client.find("a/b", "one").await.unwrap();
    assert_eq!(one.platforms, ["linux/amd64"]);
    assert_eq!(client.digest("a/b", "one").await.unwrap().as_deref(), Some("sha256:header"));
    assert_eq!(client.digest("a/b", "none").await.unwrap(), None);
}

#[tokio::test]
async fn what_the_registry_refuses_and_what_it_lacks_is_told() {
    let host = registry().await;
    let error = RegistryClient::new(&host, login("wrong")).find("a/b", "one").await.unwrap_err().to_string();
    assert!(
        error.contains("does not let the user `user` read") && error.contains("--registry-login"),
        "{error}"
    );
    assert!(!error.contains("wrong"), "{error}");
    let error = RegistryClient::new(&host, None).find("a/b", "one").await.unwrap_err().to_string();
    assert!(error.contains("does not let anybody read"), "{error}");
    let client = RegistryClient::new(&host, login("pass"));
    let error = client.find("a/b", "gone").await.unwrap_err().to_string();
    assert!(error.contains("has no image") && error.contains("gone"), "{error}");
    let error = client.find("a/b", "sha256:00").await.unwrap_err().to_string();
    assert!(error.contains("sends something else"), "{error}");
}

#[test]
fn a_login_is_never_sent_unencrypted_but_to_this_machine() {
    let base = |host: &str| RegistryClient::new(host, None).base();
    assert_eq!(base("localhost:5001"), "http://localhost:5001");
    assert_eq!(base("127.0.0.1:5001"), "http://127.0.0.1:5001");
    assert_eq!(base("factory.azurecr.io"), "https://factory.azurecr.io");
    assert_eq!(base("localhost.example:5000"), "https://localhost.example:5000");
    assert_eq!(base("127.0.0.1.example"), "https://127.0.0.1.example");
    assert_eq!(base(DOCKER_HUB), "https://registry-1.docker.io");
    assert_eq!(Challenge::of("Basic realm=\"x\""), None);
}
