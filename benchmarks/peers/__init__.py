"""The same work done by each library.

Each function here takes a `benchmarks.work.Work`, and whether to do it on the GPU, and returns a
function that does jobs of it. That of a training takes minibatches, rows of the data set,
(updates, batch), and returns the loss before each update. That of a numerical gradient takes
elements of the variables and returns the derivatives. What they return is on the host, so all is
done by then.
"""
