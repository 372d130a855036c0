"""A schema registry within this process, and records in its wire format."""

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from io import BytesIO
from typing import Any

import fastavro


@contextmanager
def schema_registry(answers: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """The URL of a registry with these answers, path -> JSON; it knows no other schemas."""

    class Registry(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = answers.get(self.path.partition("?")[0])
            body = json.dumps(found or {"error_code": 40403, "message": "Schema not found"}).encode()
            self.send_response(200 if found else 404)
            self.send_header("Content-Type", "application/vnd.schemaregistry.v1+json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Registry) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def framed(schema: int, body: bytes) -> bytes:
    """Return a record: 0, the schema's number in four bytes, and the value."""
    return b"\0" + schema.to_bytes(4) + body


def avro(schema: dict[str, Any], value: Mapping[str, Any], *known: dict[str, Any]) -> bytes:
    """Return a value in Avro, by a schema that may refer to those that are `known`."""
    named: dict[str, Any] = {}
    for one in known:
        fastavro.parse_schema(one, named_schemas=named)
    body = BytesIO()
    fastavro.schemaless_writer(body, fastavro.parse_schema(schema, named_schemas=named), value)
    return body.getvalue()
