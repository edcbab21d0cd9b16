"""A client of Microsoft's SDK, led by a test: one JSON command a line in, one JSON answer a line out.

What arrives by itself (messages, method calls, patches, changes of the connection) waits in a queue for `next`.
"""

import base64
import json
import queue
import sys

from azure.iot.device import (
    IoTHubDeviceClient,
    IoTHubModuleClient,
    Message,
    MethodResponse,
    ProvisioningDeviceClient,
    X509,
)

LIMIT = 60
clients = {}
arrived = {}


def text(data):
    try:
        return data.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}


def x509(command):
    return X509(command["certificate"], command["key"])


def options(command):
    chosen = {"connection_retry_interval": 1, "keep_alive": command.get("keep_alive", 60)}
    with open(command["ca"]) as ca:
        chosen["server_verification_cert"] = ca.read()
    for name in ("websockets", "gateway_hostname"):
        if name in command:
            chosen[name] = command[name]
    return chosen


def create(command):
    kind = IoTHubModuleClient if command.get("module") else IoTHubDeviceClient
    chosen = options(command)
    if "connection_string" in command:
        client = kind.create_from_connection_string(command["connection_string"], **chosen)
    elif "symmetric_key" in command:
        client = kind.create_from_symmetric_key(
            command["symmetric_key"], command["hostname"], command["device"], **chosen
        )
    else:
        client = kind.create_from_x509_certificate(
            x509(command), command["hostname"], command["device"], **chosen
        )
    name = command.get("client", "")
    events = arrived[name] = queue.Queue()
    clients[name] = client

    def message(received):
        events.put({
            "event": "message", "body": text(received.data), "id": received.message_id,
            "properties": received.custom_properties, "input": received.input_name,
        })

    def method(request):
        events.put({"event": "method", "name": request.name, "payload": request.payload})
        answer = MethodResponse.create_from_method_request(request, 201, {"echo": request.payload})
        client.send_method_response(answer)

    client.on_connection_state_change = lambda: events.put({"event": "connected" if client.connected else "away"})
    client.on_method_request_received = method
    client.on_twin_desired_properties_patch_received = lambda patch: events.put({"event": "desired", "patch": patch})
    client.on_message_received = message
    client.connect()
    return {}


def send(client, command):
    message = Message(command["body"])
    for name in ("message_id", "correlation_id", "content_type", "content_encoding"):
        setattr(message, name, command.get(name))
    message.custom_properties.update(command.get("properties", {}))
    if "output" in command:
        client.send_message_to_output(message, command["output"])
    else:
        client.send_message(message)
    return {}


def register(command):
    """Registers at the provisioning service."""
    shared = {"registration_id": command["registration_id"], "id_scope": command["id_scope"]}
    chosen = {"provisioning_host": command["hostname"], **shared}
    with open(command["ca"]) as ca:
        chosen["server_verification_cert"] = ca.read()
    if "symmetric_key" in command:
        client = ProvisioningDeviceClient.create_from_symmetric_key(
            symmetric_key=command["symmetric_key"], **chosen
        )
    else:
        client = ProvisioningDeviceClient.create_from_x509_certificate(x509=x509(command), **chosen)
    if "payload" in command:
        client.provisioning_payload = command["payload"]
    result = client.register()
    state = result.registration_state
    return {"status": result.status, "hub": state.assigned_hub, "device": state.device_id}


def handle(command):
    do, name = command["do"], command.get("client", "")
    if do == "create":
        return create(command)
    if do == "register":
        return register(command)
    client = clients[name]
    if do == "send":
        return send(client, command)
    if do == "twin":
        return client.get_twin()
    if do == "report":
        client.patch_twin_reported_properties(command["patch"])
        return {}
    if do == "next":
        return arrived[name].get(timeout=LIMIT)
    if do == "end":
        client.shutdown()
        return {}
    raise ValueError(do)


for line in sys.stdin:
    try:
        answer = {"ok": handle(json.loads(line))}
    except Exception as error:  # the test judges what went wrong
        answer = {"error": repr(error) + (" from " + repr(error.__cause__) if error.__cause__ else "")}
    print(json.dumps(answer), flush=True)
