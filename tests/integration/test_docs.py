"""The commands in the documents that need Kafka."""

from pathlib import Path

from tests.test_docs import DOCUMENTS, run_blocks


def test_the_commands_that_need_kafka_run(servers: str, tmp_path: Path) -> None:
    for document in DOCUMENTS:
        run_blocks(document, "sh kafka", tmp_path, BACKCHANNEL_KAFKA=servers)
