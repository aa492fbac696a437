"""Mining of LENS (Section V): strategies, patient by patient, on the proposals of a trained detector."""
