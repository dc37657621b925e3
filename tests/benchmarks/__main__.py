from tests.benchmarks import judge

judge.main()
