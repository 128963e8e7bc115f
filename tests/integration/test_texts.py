#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Texts that are not UTF-8: a text of a scheduler or a worker in another code page, or one that was
cut inside a character, reaches its readers as valid text, and the other members of the message are
kept. Read by Python's protobuf, which refuses invalid strings."""
import json
import os
import subprocess
import sys

import tap

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "conformance"))
from client import (
    HELLO,
    NACK,
    REPLY,
    REQUEST,
    TO_QUEUE,
    WELCOME,
    Connection,
    envelope,
    pb,
)  # noqa: E402

LOCAL = os.path.join(tap.BUILD, "plugins/local/local.so")
BAD = [
    b"fichier \xe9crit \xe0 moiti\xe9",
    b"a NUL \0 in it",
    b"cut \xe2\x82",
    b"\xed\xa0\x80",
    b"\xff" * 200,
]


def sluice(broker, *args, **options):
    return subprocess.run(
        [tap.program("client/cli/sluice"), "--address", broker.address, *args],
        capture_output=True,
        timeout=60,
        **options,
    )


def field(number, value):
    """One length-delimited field of a protobuf message, below 128 bytes in its number."""
    length = len(value)
    size = bytes([length]) if length < 128 else bytes([length & 127 | 128, length >> 7])
    return (
        (
            bytes([number << 3 | 2])
            if number < 16
            else bytes([number << 3 & 127 | 2 | 128, number >> 4])
        )
        + size
        + value
    )


def request(connection, number, body):
    """A request as bytes that Python's protobuf would refuse to write; its reply, read strictly."""
    correlation = connection.next_correlation()
    connection.send(REQUEST, field(number, body), correlation)
    return pb.Reply.FromString(connection.wait(REPLY, correlation).body)


def test_a_nack_reason_is_text_for_every_reader():
    with tap.Broker() as broker:
        connection = Connection(broker.port)
        connection.call("queue_create", config={"name": "q", "max_attempts": 2})
        for reason in BAD:
            connection.publish([envelope(b"one")], "put", target=TO_QUEUE, name="q")
        connection.call("consume_open", queue="q", subscription=1, credit=len(BAD))
        for reason in BAD:
            delivery = connection.deliver(1)
            for number in delivery.numbers:
                reason = BAD[number - 1]
                tap.equal(
                    connection.ack(
                        1,
                        delivery.token,
                        [(number, 1)],
                        operation=NACK,
                        value_ms=60000,
                        reason=reason,
                    ).code,
                    0,
                    "given back",
                )
            if delivery.numbers[-1] == len(BAD):
                break
        rows = connection.call("queue_peek", name="q", max=10).items
        tap.equal(
            [row.last_reason.replace("\ufffd", "") for row in rows],
            [reason.decode("utf-8", "ignore").replace("\0", "") for reason in BAD],
            "the valid part of each is there",
        )
        shown = sluice(broker, "queue", "peek", "q", "-o", "json")
        tap.equal(
            len(json.loads(shown.stdout.decode("utf-8"))["items"]),
            len(BAD),
            "and the command's JSON is valid",
        )


def test_a_report_is_not_lost_for_its_text():
    number = pb.Request.DESCRIPTOR.fields_by_name["job_report"].number
    with tap.Broker() as broker:
        connection = Connection(broker.port)
        connection.call("queue_create", config={"name": "j", "kind": pb.QUEUE_JOBS})
        for at, text in enumerate(BAD):
            job = f"job{at}"
            connection.call("job_submit", job=job, queue="j")
            body = (
                field(1, job.encode())
                + b"\x10\x01"
                + field(3, text)
                + field(4, b"FAILED")
                + field(6, text)
                + field(7, text)
            )
            reply = request(connection, number, body)
            tap.equal(
                (reply.code, reply.job_reported.terminal),
                (0, True),
                f"the end of {job} is accepted: {reply.text}",
            )
            info = connection.call("job_show", job=job).jobs[0]
            tap.equal(
                (info.state, len(info.evidence)),
                ("FAILED", len(text)),
                "and its evidence is stored",
            )
            tap.equal(
                connection.call("job_history", job=job).history[-1].evidence,
                info.evidence,
                "in its history, too",
            )


def test_a_name_that_is_not_text_is_refused_by_field():
    number = pb.Request.DESCRIPTOR.fields_by_name["job_report"].number
    with tap.Broker() as broker:
        connection = Connection(broker.port)
        reply = request(connection, number, field(1, b"jo\xff") + field(4, b"FAILED"))
        tap.equal(reply.code, -2, "PROTOCOL")
        tap.check("job of JobReport is not valid UTF-8" in reply.text, reply.text)
        tap.equal(connection.call("queue_list").code, 0, "and the connection goes on")


def test_a_client_may_call_itself_anything():
    with tap.Broker() as broker:
        odd = Connection(broker.port, hello=False)
        odd.send(HELLO, b"\x08\x01\x10\x01" + field(3, b"w\xfcrfel"))
        odd.wait(WELCOME)
        rows = Connection(broker.port).call("session_list").sessions
        tap.check("w?rfel" in [row.client for row in rows], "it is listed as text")


def test_a_payload_whose_refusal_is_cut_ends_its_job():
    if not os.path.exists(LOCAL):
        tap.skip("local.so is not built")
    with tap.Scratch() as top:
        with tap.Broker(data=os.path.join(top, "data")) as broker:
            tap.equal(
                sluice(broker, "queue", "create", "runs", "--jobs").returncode, 0, "queue create"
            )
        with tap.Broker(
            data=os.path.join(top, "data"),
            args=["--plugin", f"{LOCAL} spool={top}/spool queue=runs"],
        ) as broker:
            for length in range(56, 62):
                name = f"cut{length}"
                payload = json.dumps(
                    {"argv": ["true"], "a" * length + "é-and-more": 1}, ensure_ascii=False
                )
                tap.equal(
                    sluice(
                        broker, "job", "submit", "--queue", "runs", "--id", name, payload
                    ).returncode,
                    0,
                    "submitted",
                )
                tap.equal(
                    sluice(broker, "job", "wait", name, "--timeout", "30s").returncode,
                    0,
                    f"{name} ends",
                )
                info = json.loads(
                    sluice(broker, "job", "show", name, "-o", "json").stdout.decode("utf-8")
                )["jobs"][0]
                tap.check(
                    info["state"] == "FAILED" and "unknown member" in info["evidence"],
                    info["evidence"],
                )


def test_an_argument_may_be_any_bytes():
    if not os.path.exists(LOCAL):
        tap.skip("local.so is not built")
    with tap.Scratch() as top:
        name = os.path.join(os.fsencode(top), b"caf\xe9.dat")
        with open(name, "wb") as file:
            file.write(b"hello\n")
        with tap.Broker(data=os.path.join(top, "data")) as broker:
            tap.equal(
                sluice(broker, "queue", "create", "runs", "--jobs").returncode, 0, "queue create"
            )
        with tap.Broker(
            data=os.path.join(top, "data"),
            args=["--plugin", f"{LOCAL} spool={top}/spool queue=runs"],
        ) as broker:
            for job, payload in (
                ("raw", b'{"argv":["cat","' + name + b'"]}'),
                ("escaped", json.dumps({"argv": ["cat", os.fsdecode(name)]}).encode()),
            ):
                tap.equal(
                    sluice(
                        broker, "job", "submit", "--queue", "runs", "--id", job, "-", input=payload
                    ).returncode,
                    0,
                    "submitted",
                )
                tap.equal(
                    sluice(broker, "job", "wait", job, "--timeout", "30s").returncode,
                    0,
                    f"{job} ends",
                )
                info = json.loads(
                    sluice(broker, "job", "show", job, "-o", "json").stdout.decode("utf-8")
                )["jobs"][0]
                tap.equal(info["state"], "COMPLETE", f"{job}: {info.get('evidence')}")


tap.main(globals())
