// Twenty texts of our own writing for exports.ts: prose, code, numbers, other scripts, chats.

export const TEXTS: readonly string[] = [
  'The capital of France is Paris, which lies on the Seine and has some two million inhabitants.',
  'def fibonacci(n):\n    if n < 2:\n        return n\n    return fibonacci(n - 1) + fibonacci(n - 2)\n',
  'naïve café, 12,345.67 £ on 03/11/2024 — ½ ² ٣ 日本語 😀',
  '<|im_start|>user\nMy card has not arrived yet.<|im_end|>\n<|im_start|>assistant\nI am sorry to hear that. Let me look it up.<|im_end|>\n',
  '{"name": "Luthier", "strings": [1, 2, 3], "nested": {"ok": true, "none": null}}',
  'a a a a a a a a a a b b b b b b b b b b',
  'Wer reitet so spät durch Nacht und Wind? Es ist der Vater mit seinem Kind.',
  'The luthier planed the spruce until it rang like a bell, then hung it by the window to dry.',
  'Water boils at one hundred degrees at sea level, and at less on a mountain, because the air presses less.',
  'To make bread you need flour, water, salt and yeast. Mix them, let the dough rise, fold it, and bake it hot.',
  'SELECT name, count(*) FROM orders JOIN customers USING (customer_id) GROUP BY name ORDER BY 2 DESC LIMIT 10;',
  'Dear Ms Keller, thank you for your letter of the third. We have found the parcel and will send it on Monday.',
  'If all cats are animals, and some animals are black, it does not follow that some cats are black.',
  '1, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144: each number is the sum of the two before it.',
  '<|im_start|>system\nYou are brief.<|im_end|>\n<|im_start|>user\nWhy is the sky blue?<|im_end|>\n<|im_start|>assistant\nAir scatters blue light more than red.<|im_end|>\n',
  'The ship left the harbour at dawn. By noon the coast was a grey line, and by evening there was only water.',
  'function add(a, b) {\n  // Returns the sum of two numbers.\n  return a + b;\n}\n\nconsole.log(add(2, 3));\n',
  'Le chat dort sur la chaise pendant que la pluie tombe sur le jardin et que personne ne parle.',
  'Step 1: open the box. Step 2: check that all parts are there. Step 3: read these steps again before you begin.',
  'In the year the bridge was built, the town had one school, two bakers, and a clock that was always ten minutes late.',
]
