
import ray

@ray.remote
def noop():
    pass

ray.init(address="local")
ray.get(noop.remote())
