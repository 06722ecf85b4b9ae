"""The last line of ./dev must not say more than was run."""

import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from count import count  # noqa: E402


class Counting(unittest.TestCase):
    def test_nextest(self):
        text = "\x1b[32;1m     Summary\x1b[0m [   5.804s] 30 tests run: 30 passed, 2 skipped\n"
        self.assertEqual(count(0, text), (30, 0))
        text = "     Summary [   0.016s] 9/12 tests run: 5 passed (1 slow), 2 failed, 1 exec failed, 1 timed out, 0 skipped\n"
        self.assertEqual(count(100, text), (5, 4))

    def test_libtest_adds_up_over_crates(self):
        text = (
            "test result: ok. 3 passed; 0 failed; 0 ignored\n"
            "test result: FAILED. 1 passed; 2 failed; 0 ignored\n"
        )
        self.assertEqual(count(101, text), (4, 2))

    def test_unittest(self):
        self.assertEqual(count(0, "Ran 15 tests in 0.102s\n\nOK\n"), (15, 0))
        self.assertEqual(count(1, "Ran 15 tests in 0.1s\n\nFAILED (failures=2, errors=1, skipped=1)\n"), (11, 3))
        self.assertEqual(count(0, "Ran 0 tests in 0.000s\n\nOK\n"), (0, 1))
        self.assertEqual(count(5, "Ran 0 tests in 0.000s\n\nNO TESTS RAN\n"), (0, 1))
        self.assertEqual(count(0, "Ran 3 tests in 0.1s\n\nOK (expected failures=1)\n"), (2, 0))

    def test_a_step_without_tests_counts_as_one(self):
        self.assertEqual(count(0, "clean\n"), (1, 0))
        self.assertEqual(count(1, "dirty\n"), (0, 1))

    def test_a_bad_end_is_a_failure_whatever_the_log_says(self):
        self.assertEqual(count(1, "Summary [ 1s] 3 tests run: 3 passed, 0 skipped\n"), (3, 1))


if __name__ == "__main__":
    unittest.main()
