"""Tables of ethical questions: deeds with what speaks for and against them, dilemmas, values."""


def _table(text: str) -> tuple[tuple[str, ...], ...]:
    lines = text.strip().splitlines()
    return tuple(tuple(cell.strip() for cell in line.split("|")) for line in lines)


# a deed after "to", what speaks for it, what speaks against it
DEEDS = _table("""
lie to protect a friend | it can spare someone needless pain | it weakens the trust that friendship rests on
eat meat | many people enjoy it and need the nutrients | animals can suffer and the climate is harmed
read a partner's private messages | it may calm a serious worry | it violates privacy and trust
keep a wallet found on the street | the owner may never be found | it belongs to someone who misses it
test medicines on animals | it can save human lives | it makes animals suffer without their consent
download films without paying | many people cannot afford them | the people who made them are not paid
break a promise to help a stranger | the stranger's need may be more urgent | others rely on our word
report a coworker who steals | it protects the company and honest colleagues | it may ruin someone's life
use facial recognition in public places | it can help to find criminals | it threatens privacy and freedom
let algorithms decide who gets a loan | it can be faster and more consistent | it may hide unfair bias
clone a pet | it comforts a grieving owner | it harms animals in the process and misleads the owner
buy cheap clothes made in bad conditions | poor families save money | workers are exploited
monitor employees with cameras | it can prevent theft and accidents | it shows distrust and invades privacy
keep wild animals in zoos | it can protect rare species | it takes their freedom away
hide a diagnosis from a patient | it may spare fear for a while | patients have a right to the truth
pay people to donate organs | more lives could be saved | the poor may be exploited
edit the genes of embryos | it could prevent grave diseases | it risks harm to people who cannot consent
ban violent video games | it may protect young children | it limits the freedom of adults
skip the line in an emergency | a life may depend on it | fairness asks everyone to wait their turn
tell white lies at work | it keeps the peace | honesty is needed for real respect
give money to beggars | it relieves a need right away | it may not solve the cause of poverty
raise children without religion | they can choose freely later | they may miss a community and tradition
use robots to care for the elderly | it eases the lack of nurses | old people need human warmth
execute murderers | some see it as just punishment | the state may kill an innocent person
publish leaked government documents | the public may learn of wrongdoing | it can endanger lives
refuse to fight in a war | killing offends one's conscience | others may have to defend us
favor relatives when hiring | we have duties to our family | it is unfair to better candidates
use a friend's work in an exam | the pressure can be great | it is dishonest and unfair to others
tax the rich more heavily | they can bear it and society needs it | they may feel punished for success
sell personal data of users | it pays for free services | people did not truly consent
let a self-driving car choose whom to save | it could reduce the total harm | a machine should not value lives
share photos of children online | it brings joy to relatives | the children cannot consent
spend public money on space travel | it brings knowledge and hope | people on Earth are in need
require vaccination by law | it protects the weak | people should decide about their bodies
fly for a short holiday | travel widens the mind | it harms the climate for everybody
eavesdrop on a conversation | it may reveal a danger | it disrespects the speakers
fire a loyal worker to cut costs | it may save the company | loyalty deserves loyalty
forgive someone who never apologized | it frees us from anger | it may excuse the harm
accept gifts from business partners | refusing may seem rude | it can influence our judgment
use artificial intelligence to write school essays | it helps students to start | it hides what they can do
""")  # fmt: skip  # noqa: E501

# what somebody did or faces, the question, values in conflict, a reasonable way
SITUATIONS = _table("""
found out that a colleague is faking expense reports | tell the manager | loyalty and honesty | speak to the colleague first and report it if it goes on
received too much change in a small shop | give the money back | self-interest and honesty | return it, since it belongs to the shop
saw a close friend cheat in the final exam | tell the teacher | friendship and fairness | urge the friend to come forward
was asked by the boss to hide a safety problem | obey | obedience and responsibility | refuse politely and document the danger
promised to keep a secret that puts somebody in danger | break the promise | confidentiality and safety | tell someone who can help, because a life weighs more
can save only one of two people from a fire | save the child or the doctor | equal worth and consequences | accept that either choice can be defended
dented a parked car and nobody saw it | leave a note | convenience and responsibility | leave a note and pay for the damage
learned that a sister's husband is unfaithful | tell the sister | truth and kindness | encourage the husband to be honest first
has to choose between a sick parent and a dream job | take the job | family duty and self-fulfillment | look for help with care before deciding
discovered that a charity wastes most donations | tell the public | prudence and transparency | ask the charity for an answer and then inform donors
heard a neighbor shouting at a child every night | call the authorities | privacy and protection | seek help, since the child cannot protect itself
got a job offer after a mistake in the application | correct the mistake | ambition and integrity | correct it before signing
works as a nurse and gave a patient the wrong dose | admit it | fear and duty | report it at once so that the patient is safe
inherited money that was earned by exploiting others | keep it | rights and justice | use part of it to repair the harm
is a journalist who could print a painful private story | publish it | press freedom and privacy | publish only what serves the public
runs a company that could save money by polluting a river | do it | profit and the common good | protect the river and accept lower profits
was offered a bribe to speed up a permit | accept it | gain and integrity | decline it and report the offer
teaches a student who will lose a scholarship by one point | change the grade | compassion and fairness | keep the grade fair and support the student in other ways
""")  # fmt: skip  # noqa: E501

# value or theory, what it asks of us
IDEAS = _table("""
utilitarianism | to choose what brings the greatest well-being for all who are affected
Kant's categorical imperative | to act only on rules that everyone could follow
virtue ethics | to become a person of good character
the golden rule | to treat others as we want to be treated
the duty to tell the truth | to respect the reason and freedom of others
justice | to give each person what is fair
compassion | to share and relieve the suffering of others
moral responsibility | to answer for what we do and fail to do
human dignity | to never treat a person merely as a means
the principle of consent | to let people decide about what concerns them
moral courage | to do what is right in spite of fear
equality | to give the interests of all the same weight
intergenerational justice | to leave a livable world to those who come after us
forgiveness | to let go of revenge and allow a new start
loyalty | to stand by people without giving up our own conscience
""")
FIELDS = (
    "medicine", "business", "journalism", "politics", "education", "sports", "science",
    "friendship", "family life", "warfare", "law", "artificial intelligence", "advertising",
    "the treatment of animals", "social media", "environmental policy",
)  # fmt: skip
NAMES = ("Anna", "Marcus", "my friend", "my uncle", "Lena", "a colleague", "Robert", "a student",
         "my roommate", "Julia", "Peter", "a woman I know")  # fmt: skip
