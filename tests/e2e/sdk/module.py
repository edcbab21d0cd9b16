"""A module of Microsoft's SDK: direct methods lead it, and what its inputs get goes to its output `echo`."""

import pathlib
import signal
import threading

from azure.iot.device import IoTHubModuleClient, Message, MethodResponse

PACE = 0.02
# How many numbers are acknowledged. The edge daemon starts its modules anew when it was killed, and the stream goes on.
LEDGER = pathlib.Path("/tmp/acknowledged")

client = IoTHubModuleClient.create_from_edge_environment(connection_retry_interval=1)
terminated = threading.Event()
stream_ends = threading.Event()


def send(payload):
    message = Message(payload["body"])
    for name in ("message_id", "correlation_id", "content_type", "content_encoding"):
        setattr(message, name, payload.get(name))
    message.custom_properties.update(payload.get("properties", {}))
    client.send_message_to_output(message, payload["output"])


def stream():
    """Sends numbers until told to end, each until it is acknowledged, and says so."""
    number = int(LEDGER.read_text()) if LEDGER.exists() else 0
    while not stream_ends.wait(PACE):
        try:
            send({"body": str(number), "output": "numbers"})
        except Exception as error:
            print(f"{number} again after {error!r}", flush=True)
            continue
        number += 1
        written = LEDGER.with_suffix(".new")
        written.write_text(str(number))
        written.replace(LEDGER)
        print(f"acknowledged {number}", flush=True)
    print(f"ended {number}", flush=True)


def handle(name, payload):
    if name == "send":
        return send(payload)
    if name == "twin":
        return client.get_twin()
    if name == "report":
        return client.patch_twin_reported_properties(payload)
    if name == "invoke":
        return client.invoke_method(payload["call"], payload["device"], payload["module"])
    if name == "stream":
        return threading.Thread(target=stream, daemon=True).start()
    if name == "end":
        return stream_ends.set()
    raise ValueError(name)


def on_method(request):
    try:
        status, payload = 201, handle(request.name, request.payload)
    except Exception as error:  # the test judges what went wrong
        status, payload = 500, repr(error) + (" from " + repr(error.__cause__) if error.__cause__ else "")
    client.send_method_response(MethodResponse.create_from_method_request(request, status, payload))


def on_patch(patch):
    client.patch_twin_reported_properties({"seen": patch.get("interval"), "version": patch["$version"]})


def on_message(message):
    properties = {**message.custom_properties, "input": message.input_name}
    send({"body": message.data.decode(), "output": "echo", "properties": properties})


for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda *_: terminated.set())
client.on_method_request_received = on_method
client.on_message_received = on_message
client.on_twin_desired_properties_patch_received = on_patch
client.on_connection_state_change = lambda: print("connected" if client.connected else "away", flush=True)
client.connect()
if LEDGER.exists():
    handle("stream", None)
terminated.wait()
client.shutdown()
