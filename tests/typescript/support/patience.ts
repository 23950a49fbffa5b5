/** How long tests wait for a condition, on a machine that does other work too; less than a test may take. */
export const PATIENCE_MS = 120_000;
