package operator

import (
	"math"
	"regexp"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/version"
	"k8s.io/utils/ptr"
)

func (spec *clusterSpec) autoscales() bool { return ptr.Deref(spec.EnableInTreeAutoscaling, false) }

// autoscalerVersion is "" unless the spec names one; Ray then chooses by itself.
func (spec *clusterSpec) autoscalerVersion() string {
	if spec.AutoscalerOptions == nil {
		return ""
	}
	return ptr.Deref(spec.AutoscalerOptions.Version, "")
}

func (spec *clusterSpec) suspended() bool { return ptr.Deref(spec.Suspend, false) }

func (spec *clusterSpec) recreates() bool {
	return spec.UpgradeStrategy != nil && ptr.Deref(spec.UpgradeStrategy.Type, "") == "Recreate"
}

func (spec *clusterSpec) authenticates() bool {
	return spec.AuthOptions != nil && spec.AuthOptions.Mode == "token"
}

// delegatesAuth says that Kubernetes' own tokens are asked for instead of one in a secret.
func (spec *clusterSpec) delegatesAuth() bool {
	return spec.AuthOptions != nil && ptr.Deref(spec.AuthOptions.EnableK8sTokenAuth, false)
}

func (spec *clusterSpec) rayIsAtLeast(minimum string) bool {
	have, err := version.ParseGeneric(spec.RayVersion)
	return err == nil && have.AtLeast(version.MustParseGeneric(minimum))
}

func (cluster *rayCluster) toleratesHeadLoss() bool {
	return strings.EqualFold(cluster.Annotations[annotationFaultTolerance], "true") ||
		cluster.Spec.GcsFaultToleranceOptions != nil
}

func (group *workerGroup) suspended() bool { return ptr.Deref(group.Suspend, false) }

func (group *workerGroup) minimum() int32 { return ptr.Deref(group.MinReplicas, 0) }

func (group *workerGroup) maximum() int32 { return ptr.Deref(group.MaxReplicas, math.MaxInt32) }

// wanted is the number of pods that the group shall have: its replicas, kept between minimum and maximum.
func (group *workerGroup) wanted() int32 {
	if group.suspended() {
		return 0
	}
	replicas := ptr.Deref(group.Replicas, group.minimum())
	if replicas < group.minimum() {
		replicas = group.minimum()
	} else if replicas > group.maximum() {
		replicas = group.maximum()
	}
	return replicas * group.NumOfHosts
}

func findEnv(name string, env []corev1.EnvVar) (corev1.EnvVar, bool) {
	for _, variable := range env {
		if variable.Name == name {
			return variable, true
		}
	}
	return corev1.EnvVar{}, false
}

func hasEnv(name string, env []corev1.EnvVar) bool {
	_, found := findEnv(name, env)
	return found
}

// addMissing appends the variables whose names the container does not set itself.
func addMissing(container *corev1.Container, variables ...corev1.EnvVar) {
	for _, variable := range variables {
		if !hasEnv(variable.Name, container.Env) {
			container.Env = append(container.Env, variable)
		}
	}
}

var migSlice = regexp.MustCompile(`nvidia\.com/mig-\d+g\.\d+gb$`)

func isGPU(resource string) bool {
	return strings.HasSuffix(resource, "gpu") || migSlice.MatchString(resource)
}
