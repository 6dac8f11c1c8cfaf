#!/bin/sh
# Makes what docker-compose.yml reads as secrets, once: keys, passwords, and for each of Gavel's users a file for Kafka and
# one for the database. Another password is drawn for whom the file is gone.
# What is there stays as it is. Needs a shell and nothing else: deploy/docker/secrets.sh [FOLDER]
set -eu
umask 077

FOLDER=${1:-${GAVEL_SECRETS:-.gavel/compose}}
OWNER=1000 # whom the containers run as: the files are closed to everybody else
USERS="audit billing feed gateway intake operator resale router"
LOGIN=org.apache.kafka.common.security

case $(id -u) in
  0 | "$OWNER") ;;
  *) echo "error: the containers read these files as user $OWNER, and you are $(id -u): run this with sudo." >&2; exit 1 ;;
esac

random() { head -c 32 /dev/urandom | base64 | tr -d '\n'; }
password() { random | tr '+/' '-_' | tr -d '='; }

# keep FILE: writes standard input there whole or not at all, and gives up what is there already.
keep() {
  cat > "$FOLDER/$1.new"
  if [ -e "$FOLDER/$1" ]; then rm "$FOLDER/$1.new"; else mv "$FOLDER/$1.new" "$FOLDER/$1"; fi
}

secret() { [ -e "$FOLDER/$1" ] || keep "$1"; cat "$FOLDER/$1"; }

user_file() { # NAME MECHANISM PASSWORD
  keep "users/$1.properties" <<END
security.protocol=SASL_PLAINTEXT
sasl.mechanism=$2
sasl.username=$1
sasl.password=$3
END
}

mkdir -p "$FOLDER/users" "$FOLDER/database"
random | secret vault.key > /dev/null
random | secret fingerprint.key > /dev/null
password | secret grafana.password > /dev/null
database=$(password | secret postgres.password)
broker=$(password | secret kafka-broker.password)
admin=$(password | secret kafka-admin.password)

passfile() { echo "*:5432:*:$1:$2"; }
passfile gavel "$database" | keep pgpass
user_file admin PLAIN "$admin"
for user in $USERS; do
  user_file "gavel.$user" SCRAM-SHA-512 "$(password)"
  passfile "gavel_$user" "$(password)" | keep "database/gavel_$user.pgpass"
done

# The administrator and the broker itself are known by PLAIN, inside alone: nobody can make them before Kafka runs.
keep kafka-server.properties <<END
listener.name.client.plain.sasl.jaas.config=$LOGIN.plain.PlainLoginModule required username="broker" password="$broker" user_broker="$broker" user_admin="$admin";
listener.name.client.scram-sha-512.sasl.jaas.config=$LOGIN.scram.ScramLoginModule required;
listener.name.outside.scram-sha-512.sasl.jaas.config=$LOGIN.scram.ScramLoginModule required;
listener.name.controller.plain.sasl.jaas.config=$LOGIN.plain.PlainLoginModule required username="broker" password="$broker" user_broker="$broker";
END

[ "$(id -u)" -ne 0 ] || chown -R "$OWNER:$OWNER" "$FOLDER"
echo "The secrets are in $FOLDER."
