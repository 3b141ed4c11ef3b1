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

{{/*
Passwords as JSON: from the values, else those of the Secret that is in the cluster, else new ones. Chosen once a rendering and
remembered, so that the Secret and the checksums on pods agree.
*/}}
{{- define "distriqueue.passwords" -}}
{{- if not (hasKey .Release "distriqueuePasswords") -}}
{{- $secret := lookup "v1" "Secret" .Release.Namespace (include "distriqueue.brokerSecretName" .) -}}
{{- $stored := (($secret | default dict).data | default dict) -}}
{{- $passwords := dict -}}
{{- range $user := list "operator" "worker" -}}
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
{{- $users := list
  (dict "name" "operator" "password" $passwords.operator "tags" list "limits" dict)
  (dict "name" "worker" "password" $passwords.worker "tags" list "limits" dict) -}}
{{- $rights := list
  (dict "user" "operator" "vhost" "/" "configure" ".*" "write" ".*" "read" ".*")
  (merge (dict "user" "worker" "vhost" "/") (.Files.Get "files/worker-rights.json" | fromJson)) -}}
{{- dict "vhosts" (list (dict "name" "/")) "users" $users "permissions" $rights | toPrettyJson -}}
{{- end -}}

{{- define "distriqueue.brokerChecksum" -}}
{{- if and .Values.rabbitmq.enabled (not .Values.rabbitmq.auth.existingSecret) -}}
{{- include "distriqueue.definitions" . | sha256sum -}}
{{- end -}}
{{- end -}}

{{- define "distriqueue.rabbitmqConfig" -}}
listeners.tcp.default = 5672
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
