"""Networks, codecs, schedules, solvers and the one training loop; knows torch and no data set."""
