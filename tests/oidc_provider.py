"""A small OpenID Connect provider on this machine: authorization code flow, RS256, over http. For tests alone."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import secrets
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlencode, urlsplit

CLIENT = ("sstmerge-test", "not-a-secret")


@dataclass
class Provider:
    """Who may sign in: e-mail address → further claims."""

    people: Mapping[str, Mapping[str, Any]]
    address: str = ""
    given: list[str] = field(default_factory=list)
    """Addresses for which a token was handed out, in this order"""


@contextmanager
def provider(people: Mapping[str, Mapping[str, Any]]) -> Iterator[Provider]:
    """A provider that runs until the block ends."""
    from joserfc import jwt
    from joserfc.jwk import RSAKey

    key = RSAKey.generate_key(2048, {"kid": "test", "use": "sig", "alg": "RS256"})
    told = Provider(people)
    codes: dict[str, dict[str, str]] = {}

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def do_GET(self) -> None:
            where, query = urlsplit(self.path).path, _single(urlsplit(self.path).query)
            if where == "/.well-known/openid-configuration":
                self._json(
                    {
                        "issuer": told.address,
                        "authorization_endpoint": f"{told.address}/authorize",
                        "token_endpoint": f"{told.address}/token",
                        "jwks_uri": f"{told.address}/jwks",
                        "userinfo_endpoint": f"{told.address}/userinfo",
                        "response_types_supported": ["code"],
                        "subject_types_supported": ["public"],
                        "id_token_signing_alg_values_supported": ["RS256"],
                        "scopes_supported": ["openid", "email", "profile"],
                    }
                )
            elif where == "/jwks":
                self._json({"keys": [key.as_dict(private=False)]})
            elif where == "/authorize":
                links = "".join(
                    f'<p><a href="/approve?{html.escape(urlencode(query | {"who": who}))}">{html.escape(who)}</a></p>'
                    for who in people
                )
                self._send(f"<!doctype html><title>Provider</title><h1>Who are you?</h1>{links}", "text/html")
            elif where == "/approve" and query["client_id"] == CLIENT[0]:
                code = secrets.token_urlsafe(16)
                codes[code] = query
                back = urlencode({"code": code, "state": query["state"]})
                self.send_response(302)
                self.send_header("Location", f"{query['redirect_uri']}?{back}")
                self.end_headers()
            else:
                self.send_error(404)

        def do_POST(self) -> None:
            sent = _single(self.rfile.read(int(self.headers["Content-Length"])).decode())
            asked = codes.pop(sent.get("code", ""), None)
            if urlsplit(self.path).path != "/token" or asked is None or self._client(sent) != CLIENT:
                self.send_error(400)
                return
            challenge = asked.get("code_challenge")
            if challenge and challenge != _s256(sent.get("code_verifier", "")):
                self.send_error(400)
                return
            who, now = asked["who"], int(time.time())
            claims = {"iss": told.address, "aud": CLIENT[0], "sub": who, "iat": now, "exp": now + 600, "email": who}
            claims |= {"nonce": asked["nonce"]} if "nonce" in asked else {}
            token = jwt.encode({"alg": "RS256", "kid": "test"}, claims | dict(people[who]), key)
            told.given.append(who)
            self._json({"access_token": secrets.token_hex(8), "token_type": "Bearer", "id_token": token})

        def _client(self, sent: Mapping[str, str]) -> tuple[str, str]:
            header = self.headers.get("Authorization", "")
            if header.startswith("Basic "):
                name, _, secret = base64.b64decode(header[6:]).decode().partition(":")
                return unquote(name), unquote(secret)
            return sent.get("client_id", ""), sent.get("client_secret", "")

        def _json(self, value: Any) -> None:
            self._send(json.dumps(value), "application/json")

        def _send(self, text: str, kind: str) -> None:
            data = text.encode()
            self.send_response(200)
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    server = ThreadingHTTPServer(("localhost", 0), Handler)
    told.address = f"http://localhost:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield told
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def secrets_toml(told: Provider, server: str) -> str:
    """What the operator of the server at address `server` writes into secrets.toml."""
    return (
        f'[auth]\nredirect_uri = "{server}/oauth2callback"\ncookie_secret = "{secrets.token_hex(16)}"\n'
        f'client_id = "{CLIENT[0]}"\nclient_secret = "{CLIENT[1]}"\n'
        f'server_metadata_url = "{told.address}/.well-known/openid-configuration"\n'
    )


def _single(query: str) -> dict[str, str]:
    return {name: values[-1] for name, values in parse_qs(query).items()}


def _s256(verifier: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
