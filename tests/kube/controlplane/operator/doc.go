// Package operator is a double of KubeRay's operator, release 1.7, for RayClusters.
//
// It answers a RayCluster with the same pods, services, secrets, events, refusals and status as the operator
// that it stands for; tests/kube/test_operator.py is the contract that both pass. Where the two differ, the
// double is wrong. It reads from caches that lag behind, deletes in no order and retries at growing intervals,
// because a client that is right only with a prompt and tidy operator is not right.
//
// RayJob, RayService and RayCronJob are not served, nor are the features which KubeRay 1.7 switches off by
// default: a RayCluster that asks for one of those is refused, as it is there.
package operator
