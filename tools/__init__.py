"""Each step of the method as one plain function that an agent can call. Tools compute and return; they never write."""
