"""Examples of long chains of thought for few-shot prompting, by scale (V1, section 2.3.1): those in the question's
language are shown, where there are any."""

from __future__ import annotations

from r1kit.collect.prompting import Exemplar

TINY = (
    Exemplar(
        question="how much is 3+9-4+6?",
        reasoning="first 3+9=12, then 12-4=8, then 8+6=14, check: 8+6=14, yes",
        summary="14",
        language="en",
    ),
    Exemplar(
        question="count the numbers over 5: 8 2 7 1",
        reasoning="ok, 8>5: 1, next 2<5: 1, next 7>5: 2, next 1<5: 2",
        summary="2",
        language="en",
    ),
    Exemplar(
        question="7+5-8+2等于多少？",
        reasoning="先算7+5=12，再算12-8=4，再算4+2=6，查：4+2=6，对",
        summary="6",
        language="zh",
    ),
    Exemplar(
        question="数一数大于5的数：8 2 7 1",
        reasoning="好，8>5: 1，然后2<5: 1，然后7>5: 2，然后1<5: 2",
        summary="2",
        language="zh",
    ),
)

# One calculation each, for a model of 135M parameters with 48 tokens to answer in.
SMOLLM2 = (
    Exemplar(
        question="Sue has 5+3=? cups.", reasoning="5 + 3 = 8. I check: 8 - 3 = 5, yes.", summary="8", language="en"
    ),
    Exemplar(
        question="He packs 4*3=? boxes",
        reasoning="4 * 3 = 4 + 4 + 4 = 12. I check: 12 / 3 = 4, yes.",
        summary="12",
        language="en",
    ),
)

MATH = (
    Exemplar(
        question="A shop sells pens in packs of 6 and in packs of 10. Tom bought 9 packs and got 70 pens. How many of "
        "his packs hold 10?",
        reasoning="I want the number of packs of 10; call it x. Tom has 9 packs, so 9 - x of them hold 6 pens.\n\n"
        "Counting pens: 10x + 6(9 - x) = 70. The left side is 10x + 54 - 6x = 4x + 54, so 4x = 16 and x = 4.\n\n"
        "Let me check this from the other end. 4 packs of 10 are 40 pens, 5 packs of 6 are 30 pens, and 40 + 30 = 70. "
        "The packs are 4 + 5 = 9. Both agree with the problem.\n\n"
        "Is there another x? Each pack of 6 that becomes a pack of 10 adds 4 pens, so the number of pens fixes x.",
        summary="With x packs of 10 and 9 - x packs of 6 the pens are 4x + 54 = 70, so \\boxed{4} packs hold 10.",
        language="en",
    ),
    Exemplar(
        question="What is the sum of all positive integers n for which n^2 + 12 is a multiple of n + 2?",
        reasoning="I could try values, but I would not know when to stop, so first I divide n^2 + 12 by n + 2.\n\n"
        "(n + 2)(n - 2) = n^2 - 4, and n^2 + 12 is that plus 16. So n + 2 must divide 16.\n\n"
        "The divisors of 16 are 1, 2, 4, 8, 16, which gives n = -1, 0, 2, 6, 14. Wait, n has to be positive, so -1 "
        "and 0 go. What stays is 2, 6 and 14.\n\n"
        "I verify each. n = 2: 16 is a multiple of 4. n = 6: 48 = 6 * 8. n = 14: 196 + 12 = 208 = 13 * 16. All three "
        "work, and no other n can, for n + 2 has to be a divisor of 16. The sum is 2 + 6 + 14 = 22.",
        summary="As n^2 + 12 = (n + 2)(n - 2) + 16, n + 2 divides 16: n is 2, 6 or 14, and the sum is \\boxed{22}.",
        language="en",
    ),
    Exemplar(
        question="一个两位数，个位数字比十位数字大3，交换两个数字得到的数与原数之和是99。求原数。",
        reasoning="设十位数字是a，那么个位数字是a+3，原数是10a+(a+3)=11a+3。\n\n"
        "交换以后的数是10(a+3)+a=11a+30。两数之和是22a+33，题目说它等于99，所以22a=66，a=3。\n\n"
        "原数是36。我再验证一遍：个位6比十位3大3，对；36+63=99，也对。\n\n"
        "还有别的可能吗？22a+33=99只有一个解，所以答案只有一个。",
        summary="设十位数字为a，由22a+33=99得a=3，原数是\\boxed{36}。",
        language="zh",
    ),
)
