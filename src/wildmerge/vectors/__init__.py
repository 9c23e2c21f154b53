"""What a method computes with: task vectors, elementwise operations, selection, linear algebra."""
