"""An Event Hub as far as a reader can tell, on Apache's Qpid Proton: SASL, tokens at $cbs, partitions at $management,
and a link a partition with a condition on the time of arrival. Takes one JSON object, and prints its port."""

import base64
import hashlib
import hmac
import json
import os
import re
import socket
import sys
import time
from urllib.parse import parse_qs, unquote

from proton import UNDESCRIBED, Array, Condition, Data, Message, SSLDomain, Terminus, int32, symbol, timestamp
from proton.handlers import MessagingHandler
from proton.reactor import Container

SELECTOR = symbol("apache.org:selector-filter:string")


class EventHub(MessagingHandler):
    def __init__(self, setting):
        super().__init__(auto_accept=True)
        self.setting = setting
        self.replies = {}
        self.sent = 0

    def on_start(self, event):
        domain = SSLDomain(SSLDomain.MODE_SERVER)
        domain.set_credentials(self.setting["chain"], self.setting["key"], None)
        acceptor = event.container.listen("127.0.0.1:0", ssl_domain=domain)
        with socket.socket(fileno=os.dup(acceptor._selectable.fileno())) as bound:
            print(bound.getsockname()[1], flush=True)

    def on_link_opening(self, event):
        link = event.link
        address = link.remote_source.address if link.is_sender else link.remote_target.address
        if address in ("$cbs", "$management"):
            link.source.copy(link.remote_source)
            link.target.copy(link.remote_target)
            if link.is_sender:
                self.replies[link.remote_target.address] = link
            return
        refusal = self.refusal(event.connection, address)
        if refusal:
            # No source, and then the reason: so does Azure.
            link.source.type = link.target.type = Terminus.UNSPECIFIED
            link.condition = Condition(*refusal)
            link.open()
            link.close()
            return
        link.source.copy(link.remote_source)
        link.target.copy(link.remote_target)
        after = self.after(link)
        number = address.rsplit("/", 1)[1]
        messages = self.setting["messages"] + self.live()
        link.queue = [it for it in messages if it["partition"] == number and it["enqueued"] > after]

    def live(self):
        """What the sensor of a device has sent just now, if the setting names one."""
        now = time.time()
        body = {
            "machine": {"temperature": 21.5, "pressure": 1.05},
            "ambient": {"temperature": 20.9, "humidity": 25},
            "timeCreated": "2026-11-22T13:00:00.123Z",
        }
        return [
            {
                "partition": "1",
                "number": number,
                "enqueued": int(now * 1000),
                "device": self.setting["live"],
                "module": "tempSensor",
                "properties": {"sequenceNumber": str(number), "batchId": "b"},
                "body": json.dumps(body),
            }
            for number in range(1, 8)
            if self.setting.get("live")
        ]

    def refusal(self, connection, address):
        found = re.fullmatch(r"([^/]+)/ConsumerGroups/([^/]+)/Partitions/([^/]+)", address or "")
        if not found:
            return "amqp:not-found", f"The messaging entity '{address}' could not be found. TrackingId:1"
        entity, group, partition = found.groups()
        if entity != self.setting["entity"] or group not in self.setting["groups"]:
            return "amqp:not-found", f"The messaging entity '{address}' could not be found. TrackingId:1"
        if not getattr(connection, "proved", False):
            return "amqp:unauthorized-access", "No token was put. TrackingId:1"
        if not self.setting.get("listen", True):
            return "amqp:unauthorized-access", "Unauthorized access. 'Listen' claim(s) are required. TrackingId:1"
        if self.setting.get("crowded"):
            return "amqp:resource-limit-exceeded", "Exceeded the maximum number of 5 receivers. TrackingId:1"
        if partition not in self.setting["partitions"]:
            return "com.microsoft:argument-out-of-range", "The specified partition is invalid"
        return None

    @staticmethod
    def after(link):
        filters = link.remote_source.filter
        filters.rewind()
        if not filters.next():
            return 0
        condition = filters.get_object()[SELECTOR]
        assert condition.descriptor == 0x468C00000004, condition
        return int(re.fullmatch(r"amqp\.annotation\.x-opt-enqueued-time > '(\d+)'", condition.value).group(1))

    def on_sendable(self, event):
        link = event.link
        while link.credit and getattr(link, "queue", None):
            it = link.queue.pop(0)
            annotations = {
                symbol("x-opt-sequence-number"): it["number"],
                symbol("x-opt-offset"): str(it["number"] * 100),
                symbol("x-opt-enqueued-time"): timestamp(it["enqueued"]),
                symbol("iothub-message-source"): "Telemetry",
            }
            if it.get("device"):
                annotations[symbol("iothub-connection-device-id")] = it["device"]
            if it.get("module"):
                annotations[symbol("iothub-connection-module-id")] = it["module"]
            body = it["body"].encode()
            link.send(Message(body=body, inferred=True, annotations=annotations, properties=it["properties"]))
            self.sent += 1
            if self.sent == self.setting.get("drop_after"):
                event.connection.condition = Condition("amqp:connection:forced", "The service is restarting")
                event.connection.close()
                return

    def on_message(self, event):
        request = event.message
        reply = self.replies[request.reply_to]
        if event.link.remote_target.address == "$cbs":
            status, words, body = self.put_token(event.connection, request), "", None
            names = ("status-code", "status-description")
        else:
            status, words, body = self.describe(request)
            names = ("statusCode", "statusDescription")
        if status == 401:
            words = "InvalidSignature: The token has an invalid signature. TrackingId:1, SystemTracker:x"
        elif status == 404:
            words = "The messaging entity could not be found. TrackingId:1"
        properties = {names[0]: int32(status), names[1]: words}
        reply.send(Message(correlation_id=request.id, properties=properties, body=body))

    def put_token(self, connection, request):
        asked = request.properties
        assert asked["operation"] == "put-token", asked
        assert asked["type"] == "servicebus.windows.net:sastoken", asked
        if asked["name"].rsplit("/", 1)[1] != self.setting["entity"]:
            return 404
        token = dict(part.split("=", 1) for part in request.body.split(" ", 1)[1].split("&"))
        signed = f"{token['sr']}\n{token['se']}".encode()
        wanted = hmac.new(self.setting["key_text"].encode(), signed, hashlib.sha256).digest()
        good = (
            token["skn"] == self.setting["policy"]
            and int(token["se"]) > time.time()
            and unquote(token["sr"]) == asked["name"]
            and hmac.compare_digest(base64.b64decode(unquote(token["sig"])), wanted)
        )
        connection.proved = good
        return 202 if good else 401

    def describe(self, request):
        asked = request.properties
        assert (asked["operation"], asked["type"]) == ("READ", "com.microsoft:eventhub"), asked
        if not self.setting.get("management", True):
            return 500, "The service was unable to process the request", None
        if asked["name"] != self.setting["entity"]:
            return 404, "", None
        partitions = Array(UNDESCRIBED, Data.STRING, *self.setting["partitions"])
        return 200, "OK", {"name": asked["name"], "partition_count": len(self.setting["partitions"]), "partition_ids": partitions}


Container(EventHub(json.loads(sys.argv[1]))).run()
