#!/bin/sh
# Make deploy/secrets/: a password for each user of Redis, the server's ACL file (hashes only), and for each role the
# file with its URL; and the inspector's password. Existing ones stay: remove the folder for new passwords. HOST is the server's name (valkey).
set -eu
here=$(cd "$(dirname "$0")" && pwd)
out=${OUT:-$here/../secrets}
host=${HOST:-valkey}
if [ -e "$out/users.acl" ]; then
  echo "$out is there already" >&2
  exit 0
fi
umask 077
mkdir -p "$out"
sha256() { if command -v sha256sum >/dev/null; then sha256sum; else shasum -a 256; fi | cut -d' ' -f1; }
cp "$here/users.acl.in" "$out/users.acl.new"
for user in edge worker jobs program operator admin; do
  password=$(od -An -N24 -tx1 /dev/urandom | tr -d ' \n')
  hash=$(printf %s "$password" | sha256)
  name=$(echo "$user" | tr '[:lower:]' '[:upper:]')
  sed "s/#$name /#$hash /" "$out/users.acl.new" >"$out/users.acl.next"
  mv "$out/users.acl.next" "$out/users.acl.new"
  echo "INNKEEPER_REDIS=redis://$user:$password@$host:6379/0" >"$out/$user.env"
done
echo "INNKEEPER_INSPECTOR_PASSWORD=$(od -An -N12 -tx1 /dev/urandom | tr -d ' \n')" >"$out/inspector.env"
chmod 644 "$out/users.acl.new" # read by the server's own user; it holds no password
chmod 711 "$out"
mv "$out/users.acl.new" "$out/users.acl"
echo "made $out" >&2
