package operator

import (
	"strings"
	"unicode"
)

// Labels, annotations and names that KubeRay puts on what it makes.
const (
	labelCluster      = "ray.io/cluster"
	labelNodeType     = "ray.io/node-type"
	labelGroup        = "ray.io/group"
	labelIsNode       = "ray.io/is-ray-node"
	labelIdentifier   = "ray.io/identifier"
	labelReplicaName  = "ray.io/worker-group-replica-name"
	labelReplicaIndex = "ray.io/worker-group-replica-index"
	labelHostIndex    = "ray.io/replica-host-index"
	labelServe        = "ray.io/serve"
	labelHeadless     = "ray.io/headless-worker-svc"
	labelOriginCRD    = "ray.io/originated-from-crd"
	labelOriginName   = "ray.io/originated-from-cr-name"
	labelAppName      = "app.kubernetes.io/name"
	labelCreatedBy    = "app.kubernetes.io/created-by"

	annotationOverwriteCommand = "ray.io/overwrite-container-cmd"
	annotationFaultTolerance   = "ray.io/ft-enabled"
	annotationStorageNamespace = "ray.io/external-storage-namespace"
	annotationFinalizerTimeout = "ray.io/gcs-ft-deletion-timeout"
	annotationKeepHeadDown     = "ray.io/disable-provisioned-head-restart"
	annotationServeService     = "ray.io/enable-serve-service"
	annotationSpecHash         = "ray.io/upgrade-strategy-recreate-hash"
	annotationVersion          = "ray.io/kuberay-version"

	finalizerRedis = "ray.io/gcs-ft-redis-cleanup-finalizer"

	appName      = "kuberay"
	operatorName = "kuberay-operator"
	release      = "v1.7.0"
	headGroupKey = "headgroup"
)

// nodeType tells the pods of a cluster apart.
type nodeType string

const (
	head         nodeType = "head"
	worker       nodeType = "worker"
	redisCleanup nodeType = "redis-cleanup"
)

// The API server appends five characters to generateName, and "-worker-" takes eight: 50 of a label's 63 are left.
const longestPrefix = 50

// longestClusterName leaves room for "-serve-svc" in a service's name.
const longestClusterName = 53

func headServiceName(cluster *rayCluster) string {
	if custom := cluster.Spec.HeadGroupSpec.HeadService; custom != nil && custom.Name != "" {
		return custom.Name
	}
	return cluster.Name + "-head-svc"
}

// headAddress is the name by which the cluster's pods find the head.
func headAddress(cluster *rayCluster) string {
	return headServiceName(cluster) + "." + cluster.Namespace + ".svc.cluster.local"
}

// podPrefix is a pod's generateName. A long prefix loses its end, and with it what told two groups apart.
func podPrefix(owner string, kind nodeType) string {
	if len(owner) > longestPrefix {
		owner = owner[:longestPrefix]
	}
	return strings.ToLower(owner + "-" + string(kind) + "-")
}

// clipName is the name of a secret, role or account: unlike a pod's it loses its beginning.
func clipName(name string) string {
	if len(name) > longestPrefix {
		name = name[len(name)-longestPrefix:]
	}
	if first := rune(name[0]); unicode.IsDigit(first) || unicode.IsPunct(first) {
		return "r" + name[1:]
	}
	return name
}

func clipLabel(value string) string {
	if len(value) > 63 {
		value = value[len(value)-63:]
	}
	if unicode.IsPunct(rune(value[0])) {
		return "r" + value[1:]
	}
	return value
}

func identifier(cluster *rayCluster, kind nodeType) string {
	return clipLabel(cluster.Name + "-" + string(kind))
}

// originCRD is the kind at the root of the cluster: a RayJob or a RayService may own it.
func originCRD(cluster *rayCluster) string {
	if origin := cluster.Labels[labelOriginCRD]; origin == "RayJob" || origin == "RayService" {
		return origin
	}
	return "RayCluster"
}
