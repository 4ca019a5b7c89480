declare namespace Tap {
  /** The test object that tap hands to a test's function. */
  type Test = import('tap').Test;
}
