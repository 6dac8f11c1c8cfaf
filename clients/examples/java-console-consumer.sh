#!/usr/bin/env bash
# Java's console consumer reads a buyer's leads, JSON or, with deliver: {kafka: avro} and Confluent's package, Avro.
#   KAFKA_HOME=/opt/kafka GAVEL_KAFKA=host:port clients/examples/java-console-consumer.sh brightroof
set -euo pipefail
"${KAFKA_HOME:?set it to an unpacked Apache Kafka}/bin/kafka-console-consumer.sh" \
  --bootstrap-server "${GAVEL_KAFKA:?set it to a broker, as in localhost:9092}" \
  --topic "buyers.${1:?name a buyer}.leads" --from-beginning --timeout-ms 10000 \
  --formatter-property print.key=true --formatter-property print.headers=true
# With Avro, the gateway serves the schemas:
#   kafka-avro-console-consumer ... --property schema.registry.url=http://localhost:8080
