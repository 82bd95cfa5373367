#!/usr/bin/env bash
# Flower 1.41.0: a hospital's key that was unregistered can never be registered again, and `flwr ... --format json`
# ends with status 0 when it refuses. Who lets a site leave a federation and come back with its key meets both: the key
# counts as "in use" for good (code 23), no answer says by which node, and only "success" in the JSON tells of it.
# Seen with flwr 1.41.0 on CPython 3.11; needs openssl. Prints what it saw and fails where that changes.
set -euo pipefail
place=$(mktemp -d)
link=
ended() { [ -z "$link" ] || kill "$link" 2>/dev/null || true; wait 2>/dev/null || true; rm -rf "$place"; }
trap ended EXIT
cd "$place"
python3 -m venv venv
venv/bin/python -m pip install --quiet --disable-pip-version-check flwr==1.41.0
bin=$place/venv/bin
export PATH=$bin:$PATH FLWR_HOME=$place/home FLWR_TELEMETRY_ENABLED=0
port=$("$bin/python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
openssl req -x509 -newkey rsa:2048 -nodes -days 2 -keyout tls.key -out tls.crt -subj /CN=localhost \
  -addext subjectAltName=IP:127.0.0.1 -addext basicConstraints=critical,CA:TRUE 2>/dev/null
ssh_key() { "$bin/python" - <<'PY'
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
print(ec.generate_private_key(ec.SECP384R1()).public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode())
PY
}
ssh_key > site.pub
mkdir home && printf '[superlink]\ndefault = "here"\n\n[superlink.here]\naddress = "127.0.0.1:%s"\nroot-certificates = "%s"\n' \
  "$port" "$place/tls.crt" > home/config.toml
"$bin/flower-superlink" --ssl-ca-certfile tls.crt --ssl-certfile tls.crt --ssl-keyfile tls.key --enable-supernode-auth \
  --host 127.0.0.1 --port "$port" --database "$place/link.db" > link.log 2>&1 &
link=$!
for _ in $(seq 60); do (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null && break; sleep 1; done

asked() { "$bin/flwr" supernode "$@" here --format json > answer.json; status=$?; }
told() { "$bin/python" -c 'import json; a = json.load(open("answer.json")); print(a["success"], a.get("node-id", ""), a.get("error-message", "").strip().splitlines()[-1:])'; }
asked register site.pub; first=$(told); node=$(echo "$first" | cut -d' ' -f2)
asked register site.pub; second=$(told); second_status=$status
asked unregister "$node"; gone=$(told)
asked register site.pub; third=$(told); third_status=$status
printf '%s\n' "registered:   $first" "again:        $second, exit status $second_status" "unregistered: $gone" \
  "and again:    $third, exit status $third_status"
refusal="False  ['[code: 23] Public key already in use.']"
[ "${first%% *}" = True ] && [ "${gone%% *}" = True ]
[ "$second" = "$refusal" ] && [ "$third" = "$refusal" ] && [ "$second_status$third_status" = 00 ]
echo "as found: flwr 1.41.0"
