{{/* The broker: where it is, who may do what there. */}}

{{- define "distriqueue.brokerSecretName" -}}
{{- if .Values.rabbitmq.enabled -}}
{{- .Values.rabbitmq.auth.existingSecret | default (printf "%s-broker" (include "distriqueue.fullname" .)) -}}
{{- else -}}
{{- required "rabbitmq.enabled is false: set broker.existingSecret to a Secret with the AMQP URL of your broker" .Values.broker.existingSecret -}}
{{- end -}}
{{- end -}}

{{- define "distriqueue.operatorUrlKey" -}}
{{- ternary "operator-url" .Values.broker.operatorKey .Values.rabbitmq.enabled -}}
{{- end -}}

{{- define "distriqueue.workerUrlKey" -}}
{{- ternary "worker-url" .Values.broker.workerKey .Values.rabbitmq.enabled -}}
{{- end -}}

{{- define "distriqueue.gatewayUrlKey" -}}
{{- ternary "gateway-url" (.Values.broker.gatewayKey | default .Values.broker.workerKey) .Values.rabbitmq.enabled -}}
{{- end -}}

{{/* The Secret with the authorities by which the broker is known; empty without TLS, or when the image's own will do. */}}
{{- define "distriqueue.brokerCaSecret" -}}
{{- ternary .Values.rabbitmq.tls.existingSecret .Values.broker.caSecret .Values.rabbitmq.enabled -}}
{{- end -}}

{{- define "distriqueue.brokerCaKey" -}}
{{- ternary "ca.crt" .Values.broker.caKey .Values.rabbitmq.enabled -}}
{{- end -}}

{{/* Scheme and port of the chart's own broker, as JSON. */}}
{{- define "distriqueue.amqp" -}}
{{- $tls := not (empty .Values.rabbitmq.tls.existingSecret) -}}
{{- dict "scheme" (ternary "amqps" "amqp" $tls) "port" (ternary 5671 5672 $tls) | toJson -}}
{{- end -}}

{{/* Who has a user of the chart's own broker. */}}
{{- define "distriqueue.brokerUsers" -}}
{{- $users := list "operator" "worker" -}}
{{- if .Values.gateway.enabled }}{{ $users = append $users "gateway" }}{{ end -}}
{{- $users | toJson -}}
{{- end -}}

{{/*
Passwords as JSON: from the values, else those of the Secret that is in the cluster, else new ones. Chosen once a rendering and
remembered, so that the Secret and the checksums on pods agree.
*/}}
{{- define "distriqueue.passwords" -}}
{{- if not (hasKey .Release "distriqueuePasswords") -}}
{{- $secret := lookup "v1" "Secret" .Release.Namespace (include "distriqueue.brokerSecretName" .) -}}
{{- $stored := (($secret | default dict).data | default dict) -}}
{{- $passwords := dict -}}
{{- range $user := include "distriqueue.brokerUsers" . | fromJsonArray -}}
{{- $given := index $.Values.rabbitmq.auth (printf "%sPassword" $user) -}}
{{- $old := index $stored (printf "%s-password" $user) | default "" | b64dec -}}
{{- $_ := set $passwords $user ($given | default $old | default (randAlphaNum 32)) -}}
{{- end -}}
{{- $_ := set .Release "distriqueuePasswords" $passwords -}}
{{- end -}}
{{- .Release.distriqueuePasswords | toJson -}}
{{- end -}}

{{/* Users and their rights, as RabbitMQ imports them at every start. */}}
{{- define "distriqueue.definitions" -}}
{{- $passwords := include "distriqueue.passwords" . | fromJson -}}
{{- $users := list -}}
{{- $rights := list -}}
{{- $everything := dict "configure" ".*" "write" ".*" "read" ".*" -}}
{{- $workers := .Files.Get "files/worker-rights.json" | fromJson -}}
{{- range $user := include "distriqueue.brokerUsers" . | fromJsonArray -}}
{{- $users = append $users (dict "name" $user "password" (index $passwords $user) "tags" list "limits" dict) -}}
{{- $rights = append $rights (merge (dict "user" $user "vhost" "/") (ternary $everything $workers (eq $user "operator"))) -}}
{{- end -}}
{{- dict "vhosts" (list (dict "name" "/")) "users" $users "permissions" $rights | toPrettyJson -}}
{{- end -}}

{{- define "distriqueue.brokerChecksum" -}}
{{- if and .Values.rabbitmq.enabled (not .Values.rabbitmq.auth.existingSecret) -}}
{{- include "distriqueue.definitions" . | sha256sum -}}
{{- end -}}
{{- end -}}

{{- define "distriqueue.rabbitmqConfig" -}}
{{ if .Values.rabbitmq.tls.existingSecret -}}
listeners.tcp = none
listeners.ssl.default = 5671
# Who connects shows a password, and need not show a certificate.
ssl_options.cacertfile = /etc/distriqueue/tls/ca.crt
ssl_options.certfile = /etc/distriqueue/tls/tls.crt
ssl_options.keyfile = /etc/distriqueue/tls/tls.key
ssl_options.verify = verify_none
ssl_options.fail_if_no_peer_cert = false
ssl_options.versions.1 = tlsv1.3
ssl_options.versions.2 = tlsv1.2
{{- else -}}
listeners.tcp.default = 5672
{{- end }}
# Users and rights come from here at every start, so that a changed password arrives; there is no guest.
definitions.import_backend = local_filesystem
definitions.local.path = /etc/distriqueue/definitions.json
{{- with dig "limits" "memory" "" .Values.rabbitmq.resources }}
# What the container may use, and the part of it above which publishers are blocked.
total_memory_available_override_value = {{ include "distriqueue.bytes" . }}
{{- end }}
vm_memory_high_watermark.relative = {{ divf .Values.rabbitmq.memoryHighWatermarkPercent 100 }}
disk_free_limit.absolute = {{ .Values.rabbitmq.diskFreeLimit }}
# The default of 512 MB is written anew for every log of the quorum queues; too much for a small volume.
raft.wal_max_size_bytes = 64000000
log.console = true
log.console.level = {{ include "distriqueue.logLevel" (dict "root" . "component" "rabbitmq") }}
log.file = false
{{- if eq .Values.logFormat "json" }}
log.console.formatter = json
{{- end }}
prometheus.tcp.port = 15692
# A dependency of rabbitmq_prometheus, of which nobody reads the figures.
management_agent.disable_metrics_collector = true
{{- end -}}
