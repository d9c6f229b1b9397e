package operator

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/version"
	"k8s.io/utils/ptr"
)

const envAutoscalerV2 = "RAY_enable_autoscaler_v2"

// checkName refuses names whose services would not fit into a label.
func checkName(cluster *rayCluster) error {
	if len(cluster.Name) > longestClusterName {
		return fmt.Errorf("the RayCluster name %q has %d characters, and no more than %d characters are allowed",
			cluster.Name, len(cluster.Name), longestClusterName)
	}
	if faults := validation.IsDNS1035Label(cluster.Name); len(faults) > 0 {
		return fmt.Errorf("the RayCluster name %q is not a DNS1035 label: %s",
			cluster.Name, strings.Join(faults, ", "))
	}
	return nil
}

// checkSpec returns the first of the reasons for which KubeRay would not touch the cluster at all.
func checkSpec(cluster *rayCluster) error {
	spec := &cluster.Spec
	if len(spec.HeadGroupSpec.Template.Spec.Containers) == 0 {
		return errors.New("headGroupSpec has no container; at least one container is needed")
	}
	head := &spec.HeadGroupSpec
	if err := checkGroupFields("Head", head.RayStartParams, head.Resources, head.Labels); err != nil {
		return err
	}
	for i := range spec.WorkerGroupSpecs {
		if err := checkWorkerGroup(spec, &spec.WorkerGroupSpecs[i]); err != nil {
			return err
		}
	}
	for _, check := range []func(*rayCluster) error{checkFaultTolerance, checkAutoscaler, checkAuth, checkGates} {
		if err := check(cluster); err != nil {
			return err
		}
	}
	return nil
}

func checkWorkerGroup(spec *clusterSpec, group *workerGroup) error {
	if len(group.Template.Spec.Containers) == 0 {
		return fmt.Errorf("workerGroupSpec %s has no container; at least one container is needed", group.GroupName)
	}
	if err := checkBounds(group); err != nil {
		return err
	}
	if err := checkGroupFields(group.GroupName, group.RayStartParams, group.Resources, group.Labels); err != nil {
		return err
	}
	if err := checkIdleTimeout(spec, group); err != nil {
		return err
	}
	return checkPriority(spec, group)
}

// checkBounds finds both bounds set: readCluster fills in what the CRD's schema defaults.
func checkBounds(group *workerGroup) error {
	switch low, high := group.minimum(), group.maximum(); {
	case low < 0:
		return fmt.Errorf("worker group %s: minReplicas is negative: %d", group.GroupName, low)
	case high < 0:
		return fmt.Errorf("worker group %s: maxReplicas is negative: %d", group.GroupName, high)
	case low > high:
		return fmt.Errorf("worker group %s: minReplicas %d is greater than maxReplicas %d",
			group.GroupName, low, high)
	}
	return nil
}

func checkGroupFields(group string, params, resources, labels map[string]string) error {
	inParams := slices.ContainsFunc([]string{"num-cpus", "num-gpus", "memory", "resources"},
		func(key string) bool { return params[key] != "" })
	if inParams && len(resources) > 0 {
		return fmt.Errorf("the %s group sets resources twice, in rayStartParams and in Resources; use one of them",
			group)
	}
	if _, set := params["labels"]; set {
		return fmt.Errorf("the %s group sets rayStartParams['labels'], which is not supported; use the group's Labels",
			group)
	}
	return checkLabels(group, labels)
}

func checkLabels(group string, labels map[string]string) error {
	var faults []string
	for key, value := range labels {
		for _, fault := range validation.IsQualifiedName(key) {
			faults = append(faults, fmt.Sprintf("invalid label key %q in the %s group: %s", key, group, fault))
		}
		for _, fault := range validation.IsValidLabelValue(value) {
			faults = append(faults, fmt.Sprintf("invalid label value %q of %q in the %s group: %s", value, key, group, fault))
		}
	}
	if len(faults) > 0 {
		return errors.New(strings.Join(faults, "; "))
	}
	return nil
}

// choosesV2 says that the second autoscaler was asked for by name; Ray's own default does not count.
func choosesV2(spec *clusterSpec) bool {
	variable, _ := findEnv(envAutoscalerV2, spec.HeadGroupSpec.Template.Spec.Containers[0].Env)
	return spec.autoscalerVersion() == "v2" || variable.Value == "1" || variable.Value == "true"
}

func checkIdleTimeout(spec *clusterSpec, group *workerGroup) error {
	switch timeout := group.IdleTimeoutSeconds; {
	case timeout == nil:
		return nil
	case *timeout < 0:
		return fmt.Errorf("worker group %s: idleTimeoutSeconds is negative: %d", group.GroupName, *timeout)
	case !choosesV2(spec):
		return fmt.Errorf("worker group %s: idleTimeoutSeconds needs autoscalerOptions.version v2", group.GroupName)
	}
	return nil
}

func checkPriority(spec *clusterSpec, group *workerGroup) error {
	if ptr.Deref(group.Priority, 0) == 0 {
		return nil
	}
	if !spec.rayIsAtLeast("2.56.0") {
		return fmt.Errorf("worker group %s: priority needs a rayVersion of 2.56.0 or later, and it is %q",
			group.GroupName, spec.RayVersion)
	}
	if !choosesV2(spec) {
		return fmt.Errorf("worker group %s: priority %d needs autoscalerOptions.version v2",
			group.GroupName, *group.Priority)
	}
	return nil
}

func checkFaultTolerance(cluster *rayCluster) error {
	spec := &cluster.Spec
	env, params := spec.HeadGroupSpec.Template.Spec.Containers[0].Env, spec.HeadGroupSpec.RayStartParams
	if spec.GcsFaultToleranceOptions != nil && cluster.Annotations[annotationFaultTolerance] != "" {
		return fmt.Errorf("the annotation %s and GcsFaultToleranceOptions are both set; use the options",
			annotationFaultTolerance)
	}
	if !cluster.toleratesHeadLoss() && hasEnv("RAY_REDIS_ADDRESS", env) {
		return errors.New("RAY_REDIS_ADDRESS is set without GcsFaultToleranceOptions; set the options")
	}
	if spec.GcsFaultToleranceOptions != nil {
		if err := checkRedisOptions(cluster, env); err != nil {
			return err
		}
	}
	if params["redis-username"] != "" || hasEnv("REDIS_USERNAME", env) {
		return errors.New("a redis username in the head's flags or environment; use GcsFaultToleranceOptions.RedisUsername")
	}
	return nil
}

func checkRedisOptions(cluster *rayCluster, env []corev1.EnvVar) error {
	options := cluster.Spec.GcsFaultToleranceOptions
	switch {
	case cluster.Spec.HeadGroupSpec.RayStartParams["redis-password"] != "":
		return errors.New("redis-password in rayStartParams beside GcsFaultToleranceOptions; use its RedisPassword")
	case hasEnv("REDIS_PASSWORD", env):
		return errors.New("REDIS_PASSWORD in the head's env beside GcsFaultToleranceOptions; use its RedisPassword")
	case hasEnv("RAY_REDIS_ADDRESS", env):
		return errors.New("RAY_REDIS_ADDRESS in the head's env beside GcsFaultToleranceOptions; use its RedisAddress")
	case cluster.Annotations[annotationStorageNamespace] != "":
		return fmt.Errorf("the annotation %s beside GcsFaultToleranceOptions; use its ExternalStorageNamespace",
			annotationStorageNamespace)
	case options.Backend == "rocksdb":
		return errors.New("the rocksdb backend needs the feature gate GCSFaultToleranceEmbeddedStorage, which is off")
	case options.Storage != nil:
		return errors.New("GcsFaultToleranceOptions.Storage belongs to the rocksdb backend, and the backend is redis")
	}
	return nil
}

func checkAutoscaler(cluster *rayCluster) error {
	spec := &cluster.Spec
	variable, inEnv := findEnv(envAutoscalerV2, spec.HeadGroupSpec.Template.Spec.Containers[0].Env)
	if !spec.autoscales() && (variable.Value == "1" || variable.Value == "true") {
		return fmt.Errorf("%s is %q while enableInTreeAutoscaling is off; turn it on",
			envAutoscalerV2, variable.Value)
	}
	if spec.autoscales() {
		if spec.autoscalerVersion() != "" && inEnv {
			return fmt.Errorf("autoscalerOptions.version and %s are both set; use the version", envAutoscalerV2)
		}
		if err := checkAutoscaledPods(spec); err != nil {
			return err
		}
	}
	return checkAutoscalerOptions(spec.AutoscalerOptions)
}

func checkAutoscaledPods(spec *clusterSpec) error {
	for _, group := range spec.WorkerGroupSpecs {
		if group.suspended() {
			return fmt.Errorf("worker group %s cannot be suspended while the autoscaler is enabled", group.GroupName)
		}
	}
	if spec.autoscalerVersion() != "v2" {
		return nil
	}
	if restarts(&spec.HeadGroupSpec.Template) {
		return errors.New("the head's restartPolicy has to be Never or unset with autoscaler v2")
	}
	for _, group := range spec.WorkerGroupSpecs {
		if restarts(&group.Template) {
			return fmt.Errorf("the restartPolicy of worker group %s has to be Never or unset with autoscaler v2",
				group.GroupName)
		}
	}
	return nil
}

func restarts(template *corev1.PodTemplateSpec) bool {
	return template.Spec.RestartPolicy != "" && template.Spec.RestartPolicy != corev1.RestartPolicyNever
}

func checkAutoscalerOptions(options *autoscalerOptions) error {
	if options == nil {
		return nil
	}
	if timeout := options.IdleTimeoutSeconds; timeout != nil && *timeout < 0 {
		return fmt.Errorf("autoscalerOptions.idleTimeoutSeconds is negative: %d", *timeout)
	}
	if hasEnv(envAutoscalerCommand, options.Env) {
		return fmt.Errorf("autoscalerOptions.env sets %s, which is KubeRay's own", envAutoscalerCommand)
	}
	return nil
}

func checkAuth(cluster *rayCluster) error {
	spec := &cluster.Spec
	if !spec.authenticates() {
		if spec.delegatesAuth() {
			return errors.New("authOptions.enableK8sTokenAuth needs authOptions.mode 'token'")
		}
		return nil
	}
	if _, err := version.ParseGeneric(spec.RayVersion); err != nil {
		return fmt.Errorf("authOptions.mode is 'token' and the RayVersion is %q; name one, 2.52.0 or later",
			spec.RayVersion)
	}
	if !spec.rayIsAtLeast("2.52.0") {
		return fmt.Errorf("authOptions.mode 'token' needs Ray 2.52.0 or later, and the RayVersion is %s",
			spec.RayVersion)
	}
	if !spec.delegatesAuth() {
		return nil
	}
	if !spec.rayIsAtLeast("2.55.0") {
		return fmt.Errorf("authOptions.enableK8sTokenAuth needs Ray 2.55.0 or later, and the RayVersion is %s",
			spec.RayVersion)
	}
	if ptr.Deref(spec.AuthOptions.SecretName, "") != "" {
		return errors.New("authOptions.enableK8sTokenAuth and authOptions.secretName are both set; choose one")
	}
	return nil
}

// checkGates refuses what KubeRay 1.7 leaves switched off.
func checkGates(cluster *rayCluster) error {
	spec := &cluster.Spec
	for _, gated := range []struct {
		field, gate string
		asked       bool
	}{
		{"historyServerOptions", "RayClusterHistoryServer", spec.HistoryServerOptions != nil},
		{"networkPolicy", "RayClusterNetworkPolicy", spec.NetworkPolicy != nil},
		{"tlsOptions", "RayClusterMTLS", spec.TLSOptions != nil},
	} {
		if gated.asked {
			return fmt.Errorf("spec.%s needs the feature gate %s, which is off", gated.field, gated.gate)
		}
	}
	return nil
}

func checkUpgrade(cluster *rayCluster) error {
	strategy := cluster.Spec.UpgradeStrategy
	if strategy == nil || strategy.Type == nil {
		return nil
	}
	if *strategy.Type != "Recreate" && *strategy.Type != "None" {
		return fmt.Errorf("upgradeStrategy.type is %q; Recreate and None are allowed", *strategy.Type)
	}
	if origin := originCRD(cluster); origin != "RayCluster" {
		return fmt.Errorf("upgradeStrategy cannot be set on a RayCluster that a %s has made", origin)
	}
	return nil
}

func checkStatus(cluster *rayCluster) error {
	conditions := cluster.Status.Conditions
	suspending := meta.IsStatusConditionTrue(conditions, conditionSuspending)
	if suspending && meta.IsStatusConditionTrue(conditions, conditionSuspended) {
		return errors.New("the conditions RayClusterSuspending and RayClusterSuspended are both true")
	}
	return nil
}
